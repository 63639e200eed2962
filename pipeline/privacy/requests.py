"""What the privacy role does about requests other than erasures."""

import threading
import time
from collections.abc import Callable
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

Outcome = tuple[list[ReceiptEntry], str]
"""The stores a request concerns, and a remark."""


def carry_out(settings: Settings, request: PrivacyRequest) -> Outcome:
    """Carry out a request that is no erasure. Gives the stores it concerns and a remark.

    Raises LookupFailed when nobody is known by the identifier, ValueError when the request cannot be carried out.
    """
    now_ms = time.time_ns() // 1_000_000
    if request.request == "export":
        folder = export_folder(settings, request.request_id)
        write_export(export(settings, request.identifier, folder), folder)
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


class Exporting(threading.Thread):
    """An export under way: it may read for hours, and nobody's erasure waits for it."""

    def __init__(self, request: PrivacyRequest, work: Callable[[], Outcome]) -> None:
        super().__init__(name="export", daemon=True)
        self.request = request
        self._work = work
        self._outcome: Outcome | Exception = [], ""

    def run(self) -> None:
        """Carry it out; what it raises is raised by `outcome`."""
        try:
            self._outcome = self._work()
        except Exception as error:  # noqa: BLE001 - whoever asks for the outcome raises it
            self._outcome = error

    def outcome(self) -> Outcome:
        """What came of it, once it has ended."""
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


def export_folder(settings: Settings, request_id: str) -> Path:
    """Where the privacy role leaves an export."""
    return settings.state_dir / "exports" / request_id
