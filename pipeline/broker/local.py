"""A local Apache Kafka: one process per node, KRaft, on loopback, ended with whoever started it."""

import base64
import errno
import json
import logging
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from pipeline.broker import supervisor
from pipeline.broker.folder import announce, is_locked, lock_folder, withdraw
from pipeline.broker.jars import Distribution, distribution
from pipeline.broker.kafka import Kafka
from pipeline.errors import BrokerError

HOST = "127.0.0.1"
# Below the ports that Linux gives to outgoing connections: a node that is down for a while finds its port still free.
_PORTS = range(20_000, 32_000)
_START_WITHIN_S = 120.0  # about 2 on an idle machine
_ROOM_WANTED = 20 * 1024**2
_STOP_WITHIN_S = 15.0
_TEMPORARY = "headwater-kafka-"
# The default collector takes two of two cores for each of its pauses, five a second while its heap is small.
_JAVA_OPTIONS = (
    "-Xms256m",
    "-Xmn160m",
    "-Xmx400m",
    "-XX:+UseSerialGC",
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss,SSS",
    "-Dlog4j2.disable.jmx=true",
)

_log = logging.getLogger(__name__)


def broker_properties(nodes: int) -> dict[str, str]:
    """The settings of a Kafka for one machine, of this many nodes; the same in a container."""
    copies = str(min(nodes, 3))
    enough = "2" if nodes >= 3 else "1"
    return {
        # A misspelt topic is an error, not a new topic.
        "auto.create.topics.enable": "false",
        "default.replication.factor": copies,
        "min.insync.replicas": enough,
        "offsets.topic.replication.factor": copies,
        "offsets.topic.num.partitions": "8",
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": enough,
        "transaction.state.log.num.partitions": "8",
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": enough,
        # A worker joins and leaves without the wait that suits a fleet starting at once.
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        # An expired transaction of a dead worker is aborted within a second of its end, not ten.
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
        "message.max.bytes": str(8 * 1024 * 1024),
        # What was forgotten leaves the disk of one machine in seconds; a large cluster looks every few minutes.
        "log.retention.check.interval.ms": "5000",
        "log.cleaner.backoff.ms": "1000",
        # Compacting at full speed takes one of two cores for seconds, and everybody else waits. It pauses three times a
        # second: with 20 MB/s live events still felt each burst (docs/decisions/a-tick-settles-what-fits.md).
        "log.cleaner.io.max.bytes.per.second": str(5 * 1024 * 1024),
        # The cleaner takes this from the heap: the default is a third of it.
        "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
        "num.network.threads": "2",
        "num.io.threads": "4",
        # A node that comes back after a kill is not kept waiting for its former self.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
    }


class _Node:
    """One node's process and files."""

    def __init__(self, number: int, folder: Path, temporary: bool) -> None:
        self.number = number
        self.folder = folder
        self.temporary = temporary
        self.pid = 0
        self._supervisor: subprocess.Popen[str] | None = None

    @property
    def running(self) -> bool:
        return self._supervisor is not None and self._supervisor.poll() is None

    @property
    def log_file(self) -> Path:
        return self.folder / "server.log"

    def prepare(self, kafka: Distribution, cluster_id: str, properties: Mapping[str, str]) -> None:
        data = self.folder / "data"
        if not (data / "meta.properties").exists():
            data.mkdir(parents=True, exist_ok=True)
            shutil.copy(kafka.bootstrap_checkpoint, data / "bootstrap.checkpoint")
            (data / "meta.properties").write_text(
                f"version=1\ncluster.id={cluster_id}\nnode.id={self.number}\ndirectory.id={_kafka_uuid()}\n"
            )
        lines = [f"{name}={value}\n" for name, value in {**properties, "log.dirs": str(data)}.items()]
        (self.folder / "server.properties").write_text("".join(lines))

    def start(self, kafka: Distribution, lock: int) -> None:
        order = {
            "parent": os.getpid(),
            "command": kafka.command(
                "kafka.Kafka", str(self.folder / "server.properties"), options=(*_JAVA_OPTIONS, f"-Dnode={self.folder}")
            ),
            "log": str(self.log_file),
            "grace_s": _STOP_WITHIN_S,
            "remove": str(self.folder) if self.temporary else None,
        }
        self._supervisor = subprocess.Popen(
            [sys.executable, "-I", supervisor.__file__, json.dumps(order)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # The folder stays locked until the last process that writes into it has ended.
            pass_fds=(lock,),
        )
        assert self._supervisor.stdout is not None
        with self._supervisor.stdout as answer:
            self.pid = int(answer.readline() or 0)

    def stop(self) -> None:
        if self._supervisor is not None and self._supervisor.stdin is not None:
            try:
                self._supervisor.stdin.write("stop\n")
                self._supervisor.stdin.close()
            except BrokenPipeError:
                pass  # it has already ended
            self._supervisor.wait(_STOP_WITHIN_S + 5)
            self._supervisor = None

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        if self._supervisor is not None:
            self._supervisor.wait(10)
            self.stop()

    def signal(self, number: int) -> None:
        if self.running and self.pid > 0:  # 0 would be every process of our own group
            os.kill(self.pid, number)

    def said(self) -> str:
        """The last lines it logged."""
        if not self.log_file.exists():
            return ""
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-12:])


class LocalKafka(Kafka):
    """A local Kafka of one or more nodes. Its data stand in `folder`; without one, in a temporary one.

    `properties` stand above those of `broker_properties`. With `proxied_ports`, one per node, each node has a second
    address that it announces at that port of 127.0.0.1: a client that starts there reaches the nodes only through
    whatever listens there. `behind` maps each such port to the node's own. `listeners` are further ones of a single
    node, name → port; `properties` say how they are secured.
    """

    def __init__(
        self,
        cache_dir: Path,
        folder: Path | None = None,
        nodes: int = 1,
        properties: Mapping[str, str] | None = None,
        proxied_ports: tuple[int, ...] = (),
        listeners: Mapping[str, int] | None = None,
    ) -> None:
        if nodes < 1:
            raise ValueError("a Kafka has at least one node")
        if proxied_ports and len(proxied_ports) != nodes:
            raise ValueError(f"{nodes} nodes need as many proxied ports, not {len(proxied_ports)}")
        self._kafka = distribution(cache_dir)
        self._temporary = folder is None
        if folder is None:
            _remove_abandoned_folders()
            self.folder, self._lock = _temporary_folder()
        else:
            self.folder = folder.absolute()
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = lock_folder(self.folder, _STOP_WITHIN_S + 5)
        self._nodes = [_Node(n, self.folder / f"node-{n}", self._temporary) for n in range(1, nodes + 1)]
        self.behind: dict[int, int] = {}
        self._listeners = dict(listeners or {})
        try:
            self._start(dict(properties or {}), proxied_ports)
        except BaseException:
            self.stop()
            raise
        super().__init__(",".join(f"{HOST}:{port}" for port, _ in self._ports), "local")
        announce(self.folder, self.bootstrap_servers)

    def stop(self) -> None:
        withdraw(self.folder)
        for node in self._nodes:
            if self._temporary:
                node.kill()
            else:
                node.stop()
        if self._lock >= 0:
            if self._temporary:
                shutil.rmtree(self.folder, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1

    def is_down(self) -> bool:
        return not all(node.running for node in self._nodes)

    def kill(self, node: int = 1) -> None:
        self._node(node).kill()

    def stop_node(self, node: int = 1) -> None:
        self._node(node).stop()

    def restart(self, node: int = 1) -> None:
        chosen = self._node(node)
        chosen.stop()
        chosen.start(self._kafka, self._lock)
        self.wait_until_ready()

    def pause(self, node: int = 1) -> None:
        self._node(node).signal(signal.SIGSTOP)

    def resume(self, node: int = 1) -> None:
        self._node(node).signal(signal.SIGCONT)

    def pid(self, node: int = 1) -> int:
        """The process id of a node; 0 while it is down."""
        chosen = self._node(node)
        return chosen.pid if chosen.running else 0

    def wait_until_ready(self, within_s: float = _START_WITHIN_S) -> None:
        """Return when every node that was started takes part. BrokerError with its last words if one has ended."""
        expected = [node for node in self._nodes if node.running]
        deadline = time.monotonic() + within_s
        servers = ",".join(f"{HOST}:{self._ports[node.number - 1][0]}" for node in expected)
        client = AdminClient(
            {"bootstrap.servers": servers, "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 100, "log_level": 0}
        )
        while True:
            for node in expected:
                if not node.running:
                    raise BrokerError(
                        f"The local Kafka ended while it started; its last words:\n{node.said()}",
                        str(node.log_file),
                        _what_to_do(node.log_file.parent),
                    )
            try:
                if set(client.list_topics(timeout=1).brokers) >= {node.number for node in expected}:
                    return
            except KafkaException:
                pass  # not yet
            if time.monotonic() > deadline:
                raise BrokerError(
                    f"The local Kafka did not answer within {within_s:.0f} s; its last words:\n{expected[0].said()}",
                    str(expected[0].log_file),
                    "see the log; a machine that is very busy may only need another try",
                )
            time.sleep(0.02)

    def logs(self) -> list[Path]:
        """What each node says, one file for each."""
        return [node.log_file for node in self._nodes]

    def _node(self, number: int) -> _Node:
        return self._nodes[number - 1]

    def _start(self, properties: dict[str, str], proxied_ports: tuple[int, ...]) -> None:
        file = self.folder / "cluster.json"
        known = _kept_in(file)
        cluster_id = str(known.get("cluster_id") or _kafka_uuid())
        # The address of last time, if it is still to be had: people have it in their subscribers.
        last = [(int(own), int(controller)) for own, controller in known.get("ports", [])]
        if last and len(last) != len(self._nodes):
            raise BrokerError(
                f"The folder holds a Kafka of {len(last)} nodes; {len(self._nodes)} were asked for.",
                str(self.folder),
                "ask for as many, or use another folder",
            )
        attempts = 3
        for attempt in range(1, attempts + 1):
            if last and all(_is_free(port) for pair in last for port in pair):
                self._ports = last
            else:
                self._ports = [(free_port(), free_port()) for _ in self._nodes]
            fresh = file.with_suffix(".new")
            fresh.write_text(json.dumps({"cluster_id": cluster_id, "ports": self._ports}))
            fresh.replace(file)
            self._configure(cluster_id, properties, proxied_ports)
            for node in self._nodes:
                node.start(self._kafka, self._lock)
            try:
                self.wait_until_ready()
                return
            except BrokerError:
                taken = any(
                    "BindException" in node.said() or "Address already in use" in node.said() for node in self._nodes
                )
                if attempt == attempts or not taken:
                    raise
                last = []
                for node in self._nodes:
                    node.kill()
                    node.log_file.unlink(missing_ok=True)

    def _configure(self, cluster_id: str, properties: dict[str, str], proxied_ports: tuple[int, ...]) -> None:
        voters = ",".join(
            f"{node.number}@{HOST}:{controller}" for node, (_, controller) in zip(self._nodes, self._ports, strict=True)
        )
        self.behind = {}
        for index, (node, (own, controller)) in enumerate(zip(self._nodes, self._ports, strict=True)):
            listeners = {"PLAINTEXT": own, "CONTROLLER": controller, **self._listeners}
            advertised = {"PLAINTEXT": own, **self._listeners}
            if proxied_ports:
                listeners["PROXIED"] = free_port()
                advertised["PROXIED"] = proxied_ports[index]
                self.behind[proxied_ports[index]] = listeners["PROXIED"]
            node.prepare(
                self._kafka,
                cluster_id,
                {
                    "process.roles": "broker,controller",
                    "node.id": str(node.number),
                    "controller.quorum.voters": voters,
                    "controller.listener.names": "CONTROLLER",
                    "listeners": _addresses(listeners),
                    "advertised.listeners": _addresses(advertised),
                    "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in listeners),
                    "inter.broker.listener.name": "PLAINTEXT",
                    **broker_properties(len(self._nodes)),
                    **properties,
                },
            )


def _what_to_do(folder: Path) -> str:
    """About a Kafka that does not start. Its data are the workspace: nobody is to remove them for a full disk."""
    if shutil.disk_usage(folder).free < _ROOM_WANTED:
        return "the disk is full: make room and start it again; nothing has to be removed from this folder"
    return (
        "see its log; only if its data are damaged, and nothing of the workspace is needed any more, remove the "
        "folder: the workspace begins anew"
    )


def _addresses(listeners: Mapping[str, int]) -> str:
    return ",".join(f"{name}://{HOST}:{port}" for name, port in listeners.items())


def _kafka_uuid() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def _kept_in(file: Path) -> dict[str, Any]:
    """What a Kafka of this folder was started with last; nothing where there was none. Raises BrokerError."""
    try:
        known = json.loads(file.read_text()) if file.exists() else {}
    except (OSError, ValueError, RecursionError):
        known = None
    if isinstance(known, dict):
        return known
    raise BrokerError(
        "What this machine's Kafka was started with cannot be read.",
        str(file),
        "remove the folder, and its topics with it, or restore the file from a backup",
    )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
        return True


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens, outside those given to outgoing connections."""
    for port in random.sample(_PORTS, 200):
        if _is_free(port):
            return port
    raise BrokerError("No free port was found.", f"{HOST}:{_PORTS.start}–{_PORTS.stop}")


def _temporary_folder() -> tuple[Path, int]:
    """A new folder and its lock. It gets its name when it is locked, so that nobody takes it for an abandoned one."""
    fresh = Path(tempfile.mkdtemp(prefix=f"new-{_TEMPORARY}"))
    lock = lock_folder(fresh, 1)
    return fresh.rename(fresh.with_name(fresh.name.removeprefix("new-"))), lock


def _remove_abandoned_folders() -> None:
    """Remove the temporary folders of processes that were killed before they could do it themselves."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_TEMPORARY}*"):
        try:
            if (folder / "lock").exists() and folder.stat().st_uid == os.getuid() and not is_locked(folder):
                shutil.rmtree(folder, ignore_errors=True)
        except (OSError, BrokerError):
            continue  # gone meanwhile, or somebody else's
