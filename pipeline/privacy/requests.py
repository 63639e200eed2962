"""What the privacy role does about requests other than erasures, and the export that people ask for."""

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from pipeline.admin import topic_partitions
from pipeline.identifiers import Keys, partition_of, split_identifier
from pipeline.lookup import find_profile
from pipeline.records import (
    EVERYTHING,
    DeadLetter,
    Event,
    PrivacyRequest,
    ProfileDocument,
    ReceiptEntry,
    decode_events_record,
)
from pipeline.runtime.kafka.doors import TopicReader, current_values, produce_all
from pipeline.settings import Settings
from pipeline.topology import DELIVERIES

_decode_letter = msgspec.json.Decoder(DeadLetter).decode


def carry_out(settings: Settings, request: PrivacyRequest) -> tuple[list[ReceiptEntry], str]:
    """Carry out a request that is no erasure. Gives the stores it concerns and a remark.

    Raises LookupFailed when nobody is known by the identifier, ValueError when the request cannot be carried out.
    """
    now_ms = time.time_ns() // 1_000_000
    if request.request == "export":
        folder = export_folder(settings, request.request_id)
        write_export(export(settings, request.identifier), folder)
        return [ReceiptEntry("exports", "done", now_ms, folder.name)], "export.json and export.md"
    namespace, value = split_identifier(request.identifier)
    raw: dict[str, Any] = {
        "messageId": f"privacy-{request.request_id}",
        "identifiers": {namespace: value},
        "timestamp": now_ms,
    }
    if request.request == "suppress":
        # In the person's own name, so that it is decided as any word of theirs, and the newest word holds.
        raw |= {"type": "identify", "context": {"consent": {EVERYTHING: request.lift}}}
        produce_all(settings, settings.sources[0], [(None, msgspec.json.encode(raw))])
        how = "they are acted upon again" if request.lift else "every destination lets go of them, and none gets them"
        return [ReceiptEntry("profiles", "done", now_ms, how)], ""
    if not request.traits:
        raise ValueError("a rectification names the traits that are to be corrected")
    raw |= {"type": "identify", "traits": request.traits}
    produce_all(settings, settings.sources[0], [(None, msgspec.json.encode(raw))])
    return [ReceiptEntry("profiles", "done", now_ms, "the newest statement holds, from now on")], ""


def export_folder(settings: Settings, request_id: str) -> Path:
    """Where the privacy role leaves an export."""
    return settings.state_dir / "exports" / request_id


def export(settings: Settings, identifier: str) -> dict[str, Any]:
    """Everything that is kept about the person behind an identifier. Raises LookupFailed, BrokerError."""
    keys = Keys(settings.secret_bytes())

    def value(topic: str, key: bytes) -> bytes | None:
        return current_values(settings, topic, key).get(key)

    document = find_profile(identifier, value)
    identifiers = [f"{pair.namespace}:{pair.value}" for pair in document.identifiers]
    actors = {keys.actor(one): one for one in identifiers}
    by_profile = document.profile_id.encode()
    found: dict[str, Any] = {
        "exported_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "profile": msgspec.to_builtins(document),
        "events": _events(settings, actors),
    }
    for topic in ("profile-changes", "segment-changes"):
        found[topic.replace("-", "_")] = _keyed(settings, topic, by_profile)
    prefix = settings.topic(DELIVERIES.name)
    destinations = [name.removeprefix(prefix) for name in topic_partitions(settings) if name.startswith(prefix)]
    found["deliveries"] = {
        name: sent for name in sorted(destinations) if (sent := _keyed(settings, DELIVERIES.name + name, by_profile))
    }
    found["dead_letters"] = _letters(settings, [split_identifier(one)[1].encode() for one in identifiers])
    return found


def _events(settings: Settings, actors: dict[bytes, str]) -> list[dict[str, Any]]:
    partitions = topic_partitions(settings)[settings.topic("events")]
    by_partition: dict[int, list[bytes]] = {}
    for actor in actors:
        by_partition.setdefault(partition_of(actor, partitions), []).append(actor)
    found: list[Event] = []
    for wanted in by_partition.values():
        with TopicReader(settings, ["events"], key=wanted[0]) as reader:
            for record in reader.read_to_end():
                if record.key in wanted and record.value is not None:
                    message = decode_events_record(record.value)
                    if isinstance(message, Event):
                        found.append(message)
    return [msgspec.to_builtins(event) for event in sorted(found, key=lambda event: (event.time, event.message_id))]


def _keyed(settings: Settings, topic: str, key: bytes) -> list[Any]:
    with TopicReader(settings, [topic], key=key) as reader:
        return [msgspec.json.decode(r.value) for r in reader.read_to_end() if r.key == key and r.value is not None]


def _letters(settings: Settings, values: list[bytes]) -> list[Any]:
    found = []
    with TopicReader(settings, ["dead-letters"]) as reader:
        for record in reader.read_to_end():
            letter = _decode_letter(record.value or b"{}")
            if letter.value is not None and any(value in letter.value for value in values):
                found.append({**msgspec.to_builtins(letter), "value": letter.value.decode(errors="replace")})
    return found


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
    lines += [f"- {pair.namespace}: {pair.value}" for pair in profile.identifiers]
    sections = (
        ("What we know", profile.traits),
        ("What we have computed from it", profile.computed),
        ("What you allowed, and what not", {name: _said(given) for name, given in profile.consents.items()}),
    )
    for title, values in sections:
        if values:
            lines += ["", f"## {title}", "", *(f"- {name}: {value}" for name, value in sorted(values.items()))]
    if profile.segments:
        lines += ["", "## Groups you are in", ""]
        lines += [f"- {name}, since {_day(held.since)}" for name, held in sorted(profile.segments.items())]
    lines += ["", f"## What you did ({len(found['events'])} events)", ""]
    for event in found["events"]:
        details = "; ".join(f"{name}: {value}" for name, value in event.get("properties", {}).items())
        lines.append(f"- {_day(event['time'])} {event['event']}{f' ({details})' if details else ''}")
    lines += ["", "## To whom it was given", ""]
    given = [f"- {name}: {len(sent)} times in the last days" for name, sent in found["deliveries"].items()]
    lines += given or ["- nobody"]
    return "\n".join(lines)


def _said(given: Any) -> str:
    return "yes" if given is True else "no"


def _day(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
