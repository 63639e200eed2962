"""What the privacy role does about requests other than erasures."""

import time
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from pipeline.identifiers import split_identifier
from pipeline.lookup import find_profile
from pipeline.privacy.export import export, write_export
from pipeline.records import EVERYTHING, PrivacyRequest, ReceiptEntry
from pipeline.runtime.kafka.doors import current_value, produce_all
from pipeline.settings import Settings


def carry_out(settings: Settings, request: PrivacyRequest) -> tuple[list[ReceiptEntry], str]:
    """Carry out a request that is no erasure. Gives the stores it concerns and a remark.

    Raises LookupFailed when nobody is known by the identifier, ValueError when the request cannot be carried out.
    """
    now_ms = time.time_ns() // 1_000_000
    if request.request == "export":
        folder = export_folder(settings, request.request_id)
        write_export(export(settings, request.identifier), folder)
        return [ReceiptEntry("exports", "done", now_ms, folder.name)], "export.json and export.md"
    if request.request == "rectify" or request.lift:
        # Else somebody would be made up, and a lifted suppression pass for a consent of whoever was erased.
        find_profile(request.identifier, partial(current_value, settings))
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
