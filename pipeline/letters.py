"""Dead letters, for who looks at them and sends them again: the command, and the API."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from pipeline.deliver.allowed import MayLeave
from pipeline.errors import InputError, LookupFailed
from pipeline.ingest.stage import MAX_KEPT_BYTES
from pipeline.records import DeadLetter
from pipeline.runtime.kafka.doors import TopicReader, produce_all
from pipeline.settings import Settings
from pipeline.topology import DAY_MS, DELIVERIES

TOPIC = "dead-letters"
_LONGEST_S = 20.0

_decode = msgspec.json.Decoder(DeadLetter).decode


class Letter(NamedTuple):
    """A dead letter and where it stands in `dead-letters`."""

    partition: int
    offset: int
    letter: DeadLetter

    @property
    def id(self) -> str:
        """As people type it."""
        return f"{self.partition}/{self.offset}"


def chosen(settings: Settings, reason: str | None, topic: str | None) -> Iterator[Letter]:
    """All that the topic still has, of a reason, from a topic. Raises BrokerError."""
    with TopicReader(settings, [TOPIC]) as reader:
        for record in reader.read_to_end():
            if record.value is None:
                continue
            letter = _decode(record.value)
            if (reason is None or letter.reason == reason) and (topic is None or letter.topic == topic):
                yield Letter(record.partition, record.offset, letter)


def place_of(id: str) -> tuple[int, int]:
    """The partition and offset an id names. Raises InputError."""
    partition, slash, offset = id.partition("/")
    if not slash or not _is_number(partition) or not _is_number(offset):
        raise InputError(
            f"{id[:50]} is no id of a dead letter.", "", "write PARTITION/OFFSET, as `dead-letters list` shows"
        )
    return int(partition), int(offset)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18


def named(settings: Settings, ids: Sequence[str]) -> list[Letter]:
    """Those of these ids, in their order. Reads from the first to the last of each partition.

    Raises:
        InputError: what is no id. LookupFailed: there is no such dead letter. BrokerError.
    """
    places = [place_of(id) for id in ids]
    starts: dict[tuple[str, int], int] = {}
    ends: dict[tuple[str, int], int] = {}
    for partition, offset in places:
        key = TOPIC, partition
        starts[key], ends[key] = min(starts.get(key, offset), offset), max(ends.get(key, 0), offset)
    found: dict[tuple[int, int], Letter] = {}
    wanted = set(places)
    with TopicReader(settings, [TOPIC], only=starts) as reader:
        bounds = reader.bounds()
        for key, start in starts.items():
            low, high = bounds.get(key, (0, 0))
            if not low <= start or ends[key] >= high:
                raise _missing(settings, places, found)
        give_up = time.monotonic() + _LONGEST_S
        while any(reader.positions.get(key, 0) <= end for key, end in ends.items()) and time.monotonic() < give_up:
            for record in reader.read(10_000, 0.5):
                place = record.partition, record.offset
                if place in wanted and record.value is not None:
                    found[place] = Letter(*place, _decode(record.value))
    if len(found) < len(wanted):
        raise _missing(settings, places, found)
    return [found[place] for place in places]


def _missing(
    settings: Settings, places: Iterable[tuple[int, int]], found: Mapping[tuple[int, int], Letter]
) -> LookupFailed:
    partition, offset = next(place for place in places if place not in found)
    return LookupFailed(
        f"There is no dead letter {partition}/{offset}.", settings.topic(TOPIC), "see `headwater dead-letters list`"
    )


def whole(each: Letter) -> bytes:
    """The record as it was. Raises InputError: it has no value, or only its beginning was kept."""
    body = each.letter.value
    if body is None:
        raise InputError(
            "The record had no value, and would be refused again.", each.id, "give one: --value FILE, or leave it out"
        )
    # One of this size may have been longer.
    if len(body) == MAX_KEPT_BYTES:
        origin = f"{each.letter.topic}/{each.letter.partition}/{each.letter.offset}"
        raise InputError(
            "Only the beginning of this record is kept.",
            each.id,
            f"take the whole from {origin}, and give --value FILE",
        )
    return body


def send_again(
    settings: Settings, letters: Iterable[Letter], now_ms: int, mended: bytes | None = None, dry_run: bool = False
) -> dict[str, int]:
    """Send dead letters again, to the topic they came from, under their key; `mended` stands in the place of the value.
    Gives how many went to which topic: a delivery that the person does not allow any more goes nowhere. Raises
    InputError, BrokerError."""
    by_topic: dict[str, list[tuple[bytes | None, bytes, int]]] = {}
    may_leave: MayLeave | None = None
    for each in letters:
        body = mended if mended is not None else whole(each)
        if each.letter.topic.startswith(DELIVERIES.name):
            may_leave = may_leave or MayLeave(settings)
            if not may_leave(body):
                continue
        by_topic.setdefault(each.letter.topic, []).append((each.letter.key, body, _arrival(each.letter, now_ms)))
    return {
        name: len(records) if dry_run else produce_all(settings, name, records) for name, records in by_topic.items()
    }


def _arrival(letter: DeadLetter, now_ms: int) -> int:
    """The time its record shall have again: a sender's clock is put right by comparing it with the arrival. After a day
    that is not done any more, and a record from long ago might not be kept."""
    return letter.at if 0 < now_ms - letter.at < DAY_MS else 0


class NewestLetters:
    """Follows the newest dead letters, without their content. Keeps its connection."""

    def __init__(self, settings: Settings, most: int) -> None:
        """`most` is how many of each partition are looked back for."""
        with TopicReader(settings, [TOPIC]) as reader:
            bounds = reader.bounds()
        starts = {place: max(low, end - most) for place, (low, end) in bounds.items()}
        self._reader = TopicReader(settings, [TOPIC], start_at=starts, fetch_wait_ms=200)

    def look(self, limit: int = 2_000) -> list[Letter]:
        """What has come."""
        found = []
        for record in self._reader.read(limit, 0.05):
            if record.value is not None:
                letter = _decode(record.value)
                found.append(
                    Letter(record.partition, record.offset, msgspec.structs.replace(letter, value=None, key=None))
                )
        return found

    def close(self) -> None:
        """Let go of the connection."""
        self._reader.close()
