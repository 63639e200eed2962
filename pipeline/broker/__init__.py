"""A Kafka to run against: the configured one, else one in a container, else a local Apache Kafka on Java.

`running_kafka` is for who may start one (`headwater up`, tests); `find_kafka` for who needs one that runs already
(every other command): the configured one, or what `headwater up` runs for the same state folder. The data of a Kafka
started here stand in the state folder, for neither is worth anything without the other.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pipeline.broker import docker
from pipeline.broker.folder import announced
from pipeline.broker.kafka import Kafka
from pipeline.broker.local import LocalKafka, free_port
from pipeline.errors import BrokerError
from pipeline.settings import ENV_PREFIX, Settings

__all__ = ["Kafka", "LocalKafka", "find_kafka", "free_port", "running_kafka", "start_kafka"]

FOLDER = "kafka"

_log = logging.getLogger(__name__)

_THREE_WAYS = (
    "one of:\n"
    f"    1. name a running one: {ENV_PREFIX}BOOTSTRAP_SERVERS=host:9092, or `bootstrap_servers` in headwater.yaml\n"
    f"    2. start a container engine, and: pip install 'headwater[docker]'\n"
    f"    3. install Java 17 and Maven (Debian: apt install openjdk-17-jre-headless maven)"
)


@contextmanager
def running_kafka(settings: Settings, temporary: bool = False) -> Iterator[Kafka]:
    """A Kafka while the block runs. One that was started here is stopped at its end, also if the process is killed.

    The configured one, else the one that already runs for this state folder, else a new one (`start_kafka`). With
    `temporary` no folder matters: none is looked into, and a new one's data go with it. BrokerError with the three
    ways out if there can be none.
    """
    kafka = _existing(settings) if settings.bootstrap_servers or not temporary else None
    if kafka is None:
        folder = None if temporary else settings.state_dir / FOLDER
        kafka = start_kafka(settings, folder)
    try:
        yield kafka
    finally:
        kafka.stop()


def find_kafka(settings: Settings) -> Settings:
    """The settings with the address of a Kafka that runs: the configured one, or that of `headwater up`.

    BrokerError if neither is there. Whether the configured one answers is not tried.
    """
    kafka = _existing(settings)
    if kafka is None:
        raise BrokerError(
            "No Kafka is configured, and none runs for this state folder.",
            str(settings.state_dir.absolute()),
            f"go where `headwater up` runs, or run it here, or set {ENV_PREFIX}BOOTSTRAP_SERVERS=host:9092",
        )
    return settings.with_kafka(kafka.bootstrap_servers)


def start_kafka(
    settings: Settings, folder: Path | None = None, nodes: int = 1, properties: Mapping[str, str] | None = None
) -> Kafka:
    """Start a Kafka: in a container if an engine answers and one node is enough, else locally.

    Its data stay in `folder`; without one they are gone when it stops.
    """
    tried = ["bootstrap_servers: not set"]
    if settings.broker in ("auto", "docker") and nodes == 1 and not properties:
        reason = docker.why_not()
        if reason is None:
            try:
                return docker.DockerKafka(folder)
            except Exception as error:  # noqa: BLE001 - an image that can't be had: the next way may be open
                reason = str(error)
                _log.warning("no Kafka in a container: %s", reason)
        tried.append(f"Docker: {reason}")
    if settings.broker in ("auto", "local") or nodes > 1:
        try:
            return LocalKafka(settings.cache_dir, folder, nodes, properties)
        except BrokerError as error:
            if error.what_to_do:
                raise  # it knows a better way out than the three
            tried.append(f"local: {error.what} ({error.where})")
    raise BrokerError("There is no Kafka to run against.", "; ".join(tried), _THREE_WAYS)


def _existing(settings: Settings) -> Kafka | None:
    if settings.bootstrap_servers:
        return Kafka(settings.bootstrap_servers, "configured")
    address = announced(settings.state_dir / FOLDER)
    return Kafka(address, "running") if address else None
