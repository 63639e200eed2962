"""History for whoever reads it: the archive, if the workspace has one, and then the topic."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator

from pipeline.errors import BrokerError, InputError
from pipeline.privacy.vault import FollowedVault
from pipeline.runtime.adapters import LogReader
from pipeline.runtime.errors import Retriable, RuntimeFault
from pipeline.runtime.kafka.config import KafkaConfig
from pipeline.runtime.kafka.consumer import KafkaLogReader
from pipeline.runtime.opening import OpeningReader
from pipeline.runtime.ports import Record
from pipeline.settings import Settings

_READ_AT_ONCE = 10_000
_WAIT_S = 0.1
_TIMEOUT_S = 10.0


def with_archive(
    settings: Settings,
    of_topic: Callable[[], LogReader],
    *,
    whole: bool = False,
    keys: Collection[bytes] | None = None,
    patient: bool = False,
) -> Callable[[], LogReader]:
    """What makes a reader of the history: of the topics by `of_topic`, before them the workspace's archive, if it has
    one. `whole`, `keys` and, by this process's clock, `patient` as of `JoinedLogReader`. Raises SettingsError: the
    archive's address cannot be used; InputError: it needs a package."""
    if settings.archive is None:
        return of_topic
    try:
        from pipeline.archive.joined import JoinedLogReader
        from pipeline.archive.role import open_archive
    except ModuleNotFoundError as missing:
        raise InputError(
            f"The setting `archive` needs a package that is not installed: {missing.name}.",
            settings.archive,
            "pip install 'headwater[archive]'",
        ) from None
    archive = open_archive(settings)
    clock = time.monotonic if patient else None
    return lambda: JoinedLogReader(of_topic(), archive, whole=whole, keys=keys, patient=clock)


def history_of(
    settings: Settings, topic: str, partitions: Iterable[int], keys: Collection[bytes] | None = None
) -> Iterator[Record]:
    """Every record (with one of the keys, if any are named) that archive or topic has in these partitions, up to their
    present ends: by position, each once. Events are opened; those whose key was destroyed have no value.

    Raises SettingsError, InputError; BrokerError: the broker does not answer.
    """
    try:
        yield from _history_of(settings, topic, partitions, keys)
    except RuntimeFault as fault:
        raise BrokerError(f"Reading {topic} failed: {fault}.", settings.topic(topic), "try again") from fault


def _history_of(
    settings: Settings, topic: str, partitions: Iterable[int], keys: Collection[bytes] | None
) -> Iterator[Record]:
    config = KafkaConfig(settings.client_properties(), settings.prefix)
    make = with_archive(settings, lambda: KafkaLogReader(config, "export"), keys=keys)
    with FollowedVault(settings) as vault:
        reader = OpeningReader(make(), vault.open)
        try:
            ends: dict[tuple[str, int], int] = {}
            for number in sorted(set(partitions)):
                low, ends[topic, number] = reader.bounds((topic, number), _TIMEOUT_S)
                reader.open((topic, number), low)
            while any(reader.position(partition) < end for partition, end in ends.items()):
                try:
                    records = reader.read(_READ_AT_ONCE, _WAIT_S)
                except Retriable:
                    continue
                yield from (one for one in records if keys is None or one.key in keys)
        finally:
            reader.close()
