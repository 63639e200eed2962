"""Everything that is kept about one person, as they are given it: for machines and to read.

    events, profile and segment changes    the archive, where the topic's retention has ended, and then the topic
    deliveries                             what their topics still have
    sources, dead letters                  records in which one of the identifiers stands as a whole value
    conflicts, requests, audit             evidence not followed; what was asked about them; who looked

Asked for are all identifiers and all profile_ids that lead to the person by now, those of parts that were merged too.
What there may be very much of stands in files meanwhile, and not in memory: somebody may be a robot.
"""

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from pipeline.admin import topic_partitions
from pipeline.archive.reading import history_of
from pipeline.definitions.log import KafkaPlans
from pipeline.identifiers import Keys, partition_of, split_identifier
from pipeline.identity import IdentityRules, Junk
from pipeline.lookup import find_person
from pipeline.records import (
    AuditEntry,
    DeadLetter,
    Event,
    IdentityConflict,
    IdentityPointer,
    PrivacyReceipt,
    ProfileDocument,
    read_events_record,
)
from pipeline.runtime.kafka.doors import TopicReader, current_value, current_values
from pipeline.runtime.ports import Record
from pipeline.settings import Settings
from pipeline.topology import DELIVERIES

_decode_letter = msgspec.json.Decoder(DeadLetter).decode
_decode_pointer = msgspec.json.Decoder(IdentityPointer).decode
Pointing = tuple[str, IdentityPointer | None]
"""An identifier or a former profile_id, and where it leads; None: nowhere any more."""
_TELLING = 6
"""A value that is shorter says who somebody is only under the name of its namespace: `"quantity": 7` is nobody."""


class Subject:
    """The person: the living profile, every identifier, and every profile_id that became this one."""

    def __init__(self, settings: Settings, identifier: str) -> None:
        """Of an identifier, or a profile_id. Raises LookupFailed: nobody is known by it; BrokerError."""
        self.document = find_person(identifier, partial(current_value, settings))
        living = self.document.profile_id
        found = _leading_to(living, lambda: _identities(settings))
        theirs = sorted(text for text in found if text != living)
        self.former = [text for text in theirs if found[text].retired]
        shown = [f"{pair.namespace}:{pair.value}" for pair in self.document.identifiers]
        self.identifiers = list(dict.fromkeys((*shown, *(one for one in theirs if not found[one].retired))))
        self.profile_ids = [living, *self.former]


def _leading_to(living: str, read: Callable[[], Iterable[Pointing]]) -> dict[str, IdentityPointer]:
    """What leads to a profile, over former ones too. `identities` is read once more for each step of the way: kept is
    only what was found, for the people of a workspace do not fit into the memory of who looks for one of them."""
    found: dict[str, IdentityPointer] = {}
    targets = {living}
    while True:
        # What stands in a later record counts, be it that it leads elsewhere, or nowhere.
        step: dict[str, IdentityPointer] = {}
        for text, pointer in read():
            if pointer is not None and pointer.profile_id in targets:
                step[text] = pointer
            else:
                step.pop(text, None)
        found = step
        wider = {living, *(text for text, pointer in found.items() if pointer.retired)}
        if wider <= targets:
            return found
        targets |= wider


def _identities(settings: Settings) -> Iterator[Pointing]:
    with TopicReader(settings, ["identities"]) as reader:
        for record in reader.read_to_end():
            text = (record.key or b"").decode()
            yield text, _decode_pointer(record.value) if record.value is not None else None


def export(settings: Settings, identifier: str, folder: Path) -> dict[str, Any]:
    """Everything that is kept about the person behind an identifier. What there may be much of stands in the
    folder meanwhile, which is made for nobody else to look into. Raises LookupFailed, BrokerError."""
    subject, keys = Subject(settings, identifier), Keys(settings.secret_bytes())
    actors = {keys.actor(one) for one in subject.identifiers}
    ids = {one.encode() for one in subject.profile_ids}
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    spooled = partial(Spool, folder)
    found: dict[str, Any] = {
        "exported_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "profile": msgspec.to_builtins(subject.document),
        "identifiers": subject.identifiers,
        "former_profile_ids": subject.former,
        "events": spooled(_events(_past(settings, "events", actors))),
    }
    for topic in ("profile-changes", "segment-changes"):
        changes = (((one.partition, one.offset), one.value or b"null") for one in _past(settings, topic, ids))
        found[topic.replace("-", "_")] = spooled(changes)
    prefix = settings.topic(DELIVERIES.name)
    destinations = [name.removeprefix(prefix) for name in topic_partitions(settings) if name.startswith(prefix)]
    found["deliveries"] = {
        name: sent for name in sorted(destinations) if (sent := spooled(_keyed(settings, DELIVERIES.name + name, ids)))
    }
    with closing(KafkaPlans(settings)) as plans:
        naming = Naming(subject.identifiers, plans.latest().identity)
    found["sources"] = {
        source: records for source in settings.sources if (records := spooled(_named(settings, source, naming)))
    }
    found["dead_letters"] = spooled(_letters(settings, naming))
    found["identity_conflicts"] = list(_conflicts(settings, set(subject.identifiers)))
    # Who was looked up, or asked for, by a profile_id stands under that.
    hashes = {keys.actor(one).decode() for one in (*subject.identifiers, *subject.profile_ids)}
    found["requests"] = [
        msgspec.to_builtins(one)
        for value in current_values(settings, "privacy-receipts").values()
        if (one := msgspec.json.decode(value, type=PrivacyReceipt)).subject in hashes
    ]
    found["audit"] = list(_audit(settings, hashes))
    return found


Place = tuple[int, int | str]
Spooled = Iterable[tuple[Place, bytes]]
"""JSON, with what it is put in order by."""


class Spool:
    """Many values in an order, in a file that nobody else can open, and that is gone with this process. Of each, memory
    has where it stands."""

    def __init__(self, folder: Path, values: Spooled) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - it lives as long as what reads it
        self._places: list[tuple[Place, int, int]] = []
        at = 0
        for place, encoded in values:
            self._places.append((place, at, len(encoded)))
            at += self._file.write(encoded)
        self._places.sort()

    def __del__(self) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Any]:
        for _, at, length in self._places:
            self._file.seek(at)
            yield msgspec.json.decode(self._file.read(length))


def _past(settings: Settings, topic: str, keys: set[bytes]) -> Iterator[Record]:
    """The records of these keys, from archive and topic."""
    partitions = topic_partitions(settings)[settings.topic(topic)]
    return history_of(settings, topic, {partition_of(key, partitions) for key in keys}, keys)


def _events(records: Iterable[Record]) -> Spooled:
    for one in records:
        event = read_events_record(one.value)
        if isinstance(event, Event):
            yield (event.time, event.message_id), msgspec.json.encode(event)


def _keyed(settings: Settings, topic: str, keys: set[bytes]) -> Spooled:
    with TopicReader(settings, [topic]) as reader:
        for one in reader.read_to_end():
            if one.key in keys and one.value is not None:
                yield (one.partition, one.offset), one.value


class Naming:
    """Whether bytes that nobody has understood, or not yet, name the person."""

    def __init__(self, identifiers: Iterable[str], rules: IdentityRules) -> None:
        self._rules = rules
        self._values: dict[str, set[str]] = {}
        for one in identifiers:
            namespace, value = split_identifier(one)
            spelled = rules.spelled(namespace, value)  # it may be of a spelling of before
            self._values.setdefault(namespace, set()).update((value, *([] if isinstance(spelled, Junk) else [spelled])))
        self._names = {_plain(namespace): namespace for namespace in self._values}
        telling = {value for values in self._values.values() for value in values if len(value) >= _TELLING}
        words = "|".join(re.escape(value) for value in sorted(telling))
        self._in_text = re.compile(rf"(?<![\w@.+-])(?:{words})(?![\w@+-])", re.IGNORECASE) if words else None

    def __call__(self, value: bytes) -> bool:
        """In JSON one of the identifiers is a value, in whatever form it is normalised from; a short one only under the
        name of its namespace. In any other text it stands as a word."""
        try:
            content = msgspec.json.decode(value)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            text = value.decode(errors="replace")
            return self._in_text is not None and self._in_text.search(text) is not None
        return any(self._is_theirs(name, each) for name, each in _values(content))

    def _is_theirs(self, name: str, value: Any) -> bool:
        under = self._names.get(_plain(name))
        if under is not None and self._rules.spelled(under, value) in self._values[under]:
            return True
        if not isinstance(value, str) or len(value) < _TELLING:
            return False
        return any(
            (cleaned := self._rules.spelled(namespace, value)) in values and len(str(cleaned)) >= _TELLING
            for namespace, values in self._values.items()
        )


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


def _values(content: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every text and number in decoded JSON, with the name it stands under."""
    waiting: list[tuple[str, Any]] = [(name, content)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend((str(key), each) for key, each in value.items())
        elif isinstance(value, list):
            waiting.extend((name, each) for each in value)
        elif isinstance(value, str | int | float) and not isinstance(value, bool):
            yield name, value


def _named(settings: Settings, source: str, naming: Callable[[bytes], bool]) -> Spooled:
    with TopicReader(settings, [source]) as reader:
        for record in reader.read_to_end():
            if record.value is not None and naming(record.value):
                text = record.value.decode(errors="replace")
                shown = {"partition": record.partition, "offset": record.offset, "value": text}
                yield (record.partition, record.offset), msgspec.json.encode(shown)


def _letters(settings: Settings, naming: Callable[[bytes], bool]) -> Spooled:
    with TopicReader(settings, ["dead-letters"]) as reader:
        for record in reader.read_to_end():
            letter = _decode_letter(record.value or b"{}")
            if letter.value is not None and naming(letter.value):
                shown = {**msgspec.to_builtins(letter), "value": letter.value.decode(errors="replace")}
                yield (record.partition, record.offset), msgspec.json.encode(shown)


def _conflicts(settings: Settings, identifiers: set[str]) -> Iterator[Any]:
    with TopicReader(settings, ["identity-conflicts"]) as reader:
        for record in reader.read_to_end():
            conflict = msgspec.json.decode(record.value or b"{}", type=IdentityConflict)
            # The other end may be somebody else's: of it nothing is told.
            if conflict.a in identifiers or conflict.b in identifiers:
                theirs = [one for one in (conflict.a, conflict.b) if one in identifiers]
                yield {"identifiers": theirs, "first": conflict.first, "reason": conflict.reason}


def _audit(settings: Settings, hashes: set[str]) -> Iterator[Any]:
    with TopicReader(settings, ["audit"]) as reader:
        for record in reader.read_to_end():
            entry = msgspec.json.decode(record.value or b"{}", type=AuditEntry)
            if entry.subject in hashes:
                yield msgspec.to_builtins(entry)


def write_export(found: dict[str, Any], folder: Path) -> None:
    """Write an export: `export.json` for machines, `export.md` for people. Nobody else may read the folder."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lines = (f"{line}\n" for line in readable(found))
    for name, pieces in (("export.json", chain(_json(found), "\n")), ("export.md", lines)):
        with os.fdopen(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.writelines(pieces)


def _json(value: Any, indent: str = "") -> Iterator[str]:
    """As JSON, piece by piece; of what was spooled each value on a line of its own."""
    if isinstance(value, dict) and (not indent or any(isinstance(each, Spool) for each in value.values())):
        opening = "{"
        for name, each in value.items():
            yield f"{opening}\n{indent}  {json.dumps(name, ensure_ascii=False)}: "
            yield from _json(each, indent + "  ")
            opening = ","
        yield f"\n{indent}}}" if value else "{}"
    elif isinstance(value, Spool):
        opening = "["
        for each in value:
            yield f"{opening}\n{indent}  {json.dumps(each, ensure_ascii=False)}"
            opening = ","
        yield f"\n{indent}]" if value else "[]"
    else:
        yield json.dumps(value, indent=2, ensure_ascii=False).replace("\n", f"\n{indent}")


def readable(found: dict[str, Any]) -> Iterator[str]:
    """The lines of an export as a text for the person it is about."""
    profile = msgspec.convert(found["profile"], ProfileDocument)
    lines = ["# What we keep about you", "", f"As of {found['exported_at']}.", "", "## By what we know you", ""]
    lines += [f"- {one.replace(':', ': ', 1)}" for one in found["identifiers"]]
    sections = (
        ("What we know", profile.traits),
        ("What we have computed from it", profile.computed),
        ("What you allowed, and what not", {name: _said(given) for name, given in profile.consents.items()}),
    )
    for title, values in sections:
        if values:
            lines += ["", f"## {title}", "", *(f"- {name}: {_shown(value)}" for name, value in sorted(values.items()))]
    if profile.segments:
        lines += ["", "## Groups you are in", ""]
        lines += [f"- {name}, since {_day(held.since)}" for name, held in sorted(profile.segments.items())]
    if profile.accounts:
        lines += ["", "## Companies we know you with", "", *(f"- {name}" for name in profile.accounts)]
    yield from lines
    yield from ("", f"## What you did ({len(found['events'])} events)", "")
    for event in found["events"]:
        details = "; ".join(f"{name}: {_shown(value)}" for name, value in event.get("properties", {}).items())
        said = "; ".join(f"{name}: {_shown(value)}" for name, value in event.get("traits", {}).items())
        told = "; ".join(each for each in (details, said) if each)
        yield f"- {_day(event['time'])} {event['event']}{f' ({told})' if told else ''}"
    came = sorted(
        (one["at"], number, one["change"], one["segment"]) for number, one in enumerate(found["segment_changes"])
    )
    if came:
        yield from ("", "## When you came into a group, or left it", "")
        yield from (f"- {_day(at)} {change} {segment}" for at, _, change, segment in came)
    lines = ["", "## To whom it was given", ""]
    given = [f"- {name}: {len(sent)} times in the last days" for name, sent in found["deliveries"].items()]
    lines += given or ["- nobody"]
    if found["audit"]:
        lines += ["", "## Who looked, or changed something", ""]
        lines += [f"- {_day(one['at'])} {one['by']}: {one['action'].replace('_', ' ')}" for one in found["audit"]]
    received, refused = sum(map(len, found["sources"].values())), len(found["dead_letters"])
    conflicts = len(found["identity_conflicts"])
    rest = (
        (received, "records as they were received, before they were checked"),
        (refused, "records that could not be used"),
        (len(found["profile_changes"]), "changes of what we know"),
        (conflicts, "signs that you could be somebody else we know, which were not followed"),
        (len(found["requests"]), "requests about your data"),
    )
    if any(count for count, _ in rest):
        lines += ["", "## What else there is, in export.json", ""]
        lines += [f"- {count} {what}" for count, what in rest if count]
    yield from lines


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _said(given: Any) -> str:
    return "yes" if given is True else "no"


def _day(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
