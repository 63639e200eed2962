"""A Kafka in a container, by testcontainers: its engine is asked before a local one is started."""

import hashlib
import os
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from pipeline.broker.folder import announce, lock_folder, withdraw
from pipeline.broker.jars import KAFKA_VERSION
from pipeline.broker.kafka import Kafka
from pipeline.broker.local import HOST, broker_properties, free_port
from pipeline.errors import BrokerError

IMAGE = f"apache/kafka:{KAFKA_VERSION}"
_CLIENTS = 9092
_CONTROLLER = 9093
_START_WITHIN_S = 60.0
_DATA = "/var/lib/kafka/data"
# The same for every container: its data volume remembers it.
_CLUSTER_ID = "aGVhZHdhdGVyLWxvY2FsMQ"


def why_not() -> str | None:
    """Why no container can be started here; None if one can."""
    try:
        import docker
    except ImportError:
        return "testcontainers is not installed (pip install 'headwater[docker]')"
    try:
        client = docker.from_env(timeout=3)
    except docker.errors.DockerException:
        return "no engine answers"
    try:
        client.ping()
    except Exception as error:  # noqa: BLE001 - whatever an engine answers that is not a ping, it can't be used
        return f"its engine does not answer: {error}"
    finally:
        client.close()
    return None


class DockerKafka(Kafka):
    """One node in a container, which ends with the process that started it (testcontainers' reaper sees to that).

    With `folder`, its data stay in a volume named after the folder; else they go with the container.
    """

    def __init__(self, folder: Path | None = None) -> None:
        # The reaper removes what a killed process leaves behind; the volume is not labelled, and stays.
        from testcontainers.core.container import DockerContainer

        port = free_port()
        container = DockerContainer(IMAGE).with_bind_ports(_CLIENTS, port)
        host = container.get_container_host_ip()
        if host in ("localhost", HOST):
            published: dict[str, Any] = container.ports
            published.clear()
            published[f"{_CLIENTS}/tcp"] = (HOST, port)  # for this machine, not for its whole network
        for name, value in _properties(host, port).items():
            container = container.with_env("KAFKA_" + name.replace(".", "_").upper(), value)
        container = container.with_env("CLUSTER_ID", _CLUSTER_ID).with_env("KAFKA_HEAP_OPTS", "-Xms64m -Xmx400m")
        if folder is not None:
            named = hashlib.blake2b(str(folder.absolute()).encode(), digest_size=6).hexdigest()
            container = container.with_volume_mapping(f"headwater-kafka-{named}", _DATA, "rw")
        self._container: Any = container
        super().__init__(f"{host}:{port}", "docker")
        self._folder = folder
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = lock_folder(folder, 20)
        try:
            container.start()
            self._wait_until_ready()
            if folder is not None:
                announce(folder, self.bootstrap_servers)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        if self._folder is not None:
            withdraw(self._folder)
        self._container.stop()
        if self._folder is not None:
            os.close(self._lock)
            self._folder = None

    def kill(self, node: int = 1) -> None:
        self._container.get_wrapped_container().kill()

    def stop_node(self, node: int = 1) -> None:
        self._container.get_wrapped_container().stop()

    def restart(self, node: int = 1) -> None:
        self._container.get_wrapped_container().restart()
        self._wait_until_ready()

    def pause(self, node: int = 1) -> None:
        self._container.get_wrapped_container().pause()

    def resume(self, node: int = 1) -> None:
        self._container.get_wrapped_container().unpause()

    def _wait_until_ready(self) -> None:
        client = AdminClient({"bootstrap.servers": self.bootstrap_servers, "reconnect.backoff.max.ms": 200})
        try:
            client.list_topics(timeout=_START_WITHIN_S)
        except KafkaException as error:
            out, err = self._container.get_logs()
            said = (out + err).decode(errors="replace").splitlines()[-8:]
            raise BrokerError(
                f"Kafka in a container did not answer ({error.args[0].str()}); its last words:\n" + "\n".join(said),
                f"{IMAGE} at {self.bootstrap_servers}",
                "set HEADWATER_BROKER=local to use Java instead",
            ) from None


def _properties(host: str, port: int) -> dict[str, str]:
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@localhost:{_CONTROLLER}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://:{_CLIENTS},CONTROLLER://:{_CONTROLLER}",
        "advertised.listeners": f"PLAINTEXT://{host}:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": _DATA,
        **broker_properties(1),
    }
