"""Everything that is kept about one person, as they are given it: for machines and to read.

    events, profile and segment changes    the archive, where the topic's retention has ended, and then the topic
    deliveries                             what their topics still have
    sources, dead letters                  records in which one of the identifiers stands as a whole value
    conflicts, requests, audit             evidence not followed; what was asked about them; who looked

Asked for are all identifiers and all profile_ids that lead to the person by now, those of parts that were merged too.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from pipeline.admin import topic_partitions
from pipeline.archive.reading import history_of
from pipeline.definitions.log import KafkaPlans
from pipeline.identifiers import Keys, partition_of, split_identifier
from pipeline.identity import IdentityRules
from pipeline.lookup import find_profile
from pipeline.records import (
    AuditEntry,
    DeadLetter,
    Event,
    IdentityConflict,
    IdentityPointer,
    PrivacyReceipt,
    ProfileDocument,
    decode_events_record,
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
        """Raises LookupFailed: nobody is known by the identifier; BrokerError."""
        self.document = find_profile(identifier, partial(current_value, settings))
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


def export(settings: Settings, identifier: str) -> dict[str, Any]:
    """Everything that is kept about the person behind an identifier. Raises LookupFailed, BrokerError."""
    subject, keys = Subject(settings, identifier), Keys(settings.secret_bytes())
    actors = {keys.actor(one) for one in subject.identifiers}
    ids = {one.encode() for one in subject.profile_ids}
    found: dict[str, Any] = {
        "exported_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "profile": msgspec.to_builtins(subject.document),
        "identifiers": subject.identifiers,
        "former_profile_ids": subject.former,
        "events": [msgspec.to_builtins(one) for one in _events(_past(settings, "events", actors))],
    }
    for topic in ("profile-changes", "segment-changes"):
        found[topic.replace("-", "_")] = [_decoded(one) for one in _past(settings, topic, ids)]
    prefix = settings.topic(DELIVERIES.name)
    destinations = [name.removeprefix(prefix) for name in topic_partitions(settings) if name.startswith(prefix)]
    found["deliveries"] = {
        name: sent for name in sorted(destinations) if (sent := _keyed(settings, DELIVERIES.name + name, ids))
    }
    with closing(KafkaPlans(settings)) as plans:
        naming = Naming(subject.identifiers, plans.latest().identity)
    found["sources"] = {
        source: records for source in settings.sources if (records := list(_named(settings, source, naming)))
    }
    found["dead_letters"] = list(_letters(settings, naming))
    found["identity_conflicts"] = list(_conflicts(settings, set(subject.identifiers)))
    hashes = {actor.decode() for actor in actors}
    found["requests"] = [
        msgspec.to_builtins(one)
        for value in current_values(settings, "privacy-receipts").values()
        if (one := msgspec.json.decode(value, type=PrivacyReceipt)).subject in hashes
    ]
    found["audit"] = list(_audit(settings, hashes))
    return found


def _past(settings: Settings, topic: str, keys: set[bytes]) -> list[Record]:
    """The records of these keys, from archive and topic, in the order of partitions and positions."""
    partitions = topic_partitions(settings)[settings.topic(topic)]
    where = {partition_of(key, partitions) for key in keys}
    return sorted(history_of(settings, topic, where, keys), key=lambda one: (one.partition, one.offset))


def _events(records: Iterable[Record]) -> list[Event]:
    found = [decode_events_record(one.value) for one in records if one.value is not None]
    events = [one for one in found if isinstance(one, Event)]
    return sorted(events, key=lambda event: (event.time, event.message_id))


def _decoded(record: Record) -> Any:
    return msgspec.json.decode(record.value or b"null")


def _keyed(settings: Settings, topic: str, keys: set[bytes]) -> list[Any]:
    with TopicReader(settings, [topic]) as reader:
        return [msgspec.json.decode(r.value) for r in reader.read_to_end() if r.key in keys and r.value is not None]


class Naming:
    """Whether bytes that nobody has understood, or not yet, name the person."""

    def __init__(self, identifiers: Iterable[str], rules: IdentityRules) -> None:
        self._rules = rules
        self._values: dict[str, set[str]] = {}
        for one in identifiers:
            namespace, value = split_identifier(one)
            self._values.setdefault(namespace, set()).add(value)
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
        if under is not None and self._rules.clean(under, value) in self._values[under]:
            return True
        if not isinstance(value, str) or len(value) < _TELLING:
            return False
        return any(
            (cleaned := self._rules.clean(namespace, value)) in values and len(str(cleaned)) >= _TELLING
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


def _named(settings: Settings, source: str, naming: Callable[[bytes], bool]) -> Iterator[dict[str, Any]]:
    with TopicReader(settings, [source]) as reader:
        for record in reader.read_to_end():
            if record.value is not None and naming(record.value):
                text = record.value.decode(errors="replace")
                yield {"partition": record.partition, "offset": record.offset, "value": text}


def _letters(settings: Settings, naming: Callable[[bytes], bool]) -> Iterator[dict[str, Any]]:
    with TopicReader(settings, ["dead-letters"]) as reader:
        for record in reader.read_to_end():
            letter = _decode_letter(record.value or b"{}")
            if letter.value is not None and naming(letter.value):
                yield {**msgspec.to_builtins(letter), "value": letter.value.decode(errors="replace")}


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
    texts = {"export.json": json.dumps(found, indent=2, ensure_ascii=False), "export.md": readable(found)}
    for name, text in texts.items():
        with os.fdopen(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text + "\n")


def readable(found: dict[str, Any]) -> str:
    """An export as a text for the person it is about."""
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
    lines += ["", f"## What you did ({len(found['events'])} events)", ""]
    for event in found["events"]:
        details = "; ".join(f"{name}: {_shown(value)}" for name, value in event.get("properties", {}).items())
        said = "; ".join(f"{name}: {_shown(value)}" for name, value in event.get("traits", {}).items())
        told = "; ".join(each for each in (details, said) if each)
        lines.append(f"- {_day(event['time'])} {event['event']}{f' ({told})' if told else ''}")
    changes = found["segment_changes"]
    if changes:
        lines += ["", "## When you came into a group, or left it", ""]
        lines += [f"- {_day(one['at'])} {one['change']} {one['segment']}" for one in sorted(changes, key=_at)]
    lines += ["", "## To whom it was given", ""]
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
    return "\n".join(lines)


def _at(change: Any) -> Any:
    return change["at"]


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _said(given: Any) -> str:
    return "yes" if given is True else "no"


def _day(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
