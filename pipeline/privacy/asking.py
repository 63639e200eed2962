"""Making a request about a person's data, at any door: the record in `privacy-requests`, and a line in the audit."""

import secrets
import time
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec

from pipeline.errors import LookupFailed
from pipeline.in_charge import refuse_decisions
from pipeline.lookup import find_person, is_profile_id
from pipeline.privacy import audit
from pipeline.privacy.whom import identifiers_of
from pipeline.records import UNREADABLE, Erased, PrivacyReceipt, PrivacyRequest, RequestKind, encode
from pipeline.runtime.kafka.doors import TopicReader, current_value, current_values, produce_all
from pipeline.settings import Settings

_ACTIONS: dict[RequestKind, Any] = {
    "erase": "erased",
    "export": "exported",
    "rectify": "rectified",
    "suppress": "suppressed",
}


def ask(
    settings: Settings,
    kind: RequestKind,
    identifier: str,
    by: str,
    traits: dict[str, Any] | None = None,
    lift: bool = False,
) -> str:
    """Make a request about the person behind a normalised identifier, or a profile_id; its id.

    Raises:
        NotInChargeError: another workspace is to be asked. BrokerError.
    """
    refuse_decisions(settings)
    now = datetime.now(UTC)
    request_id = f"{now:%Y%m%d}-{secrets.token_hex(5)}"
    request = PrivacyRequest(
        request_id, kind, identifier, time.time_ns() // 1_000_000, by, traits=traits or {}, lift=lift
    )
    produce_all(settings, "privacy-requests", [(request_id.encode(), encode(request))])
    audit.note(settings, _ACTIONS[kind], identifier, "lifted" if lift else "", request_id, by)
    return request_id


def hand_over_requests(old: Settings, new: Settings) -> int:
    """Ask a workspace that takes over for what the former one was asked to forget and has not decided; how many. All
    else that is asked for goes by the sources, which stay the same."""
    decided = {
        msgspec.json.decode(value, type=Erased).request_id
        for key, value in current_values(old, "identity-decisions").items()
        if key.startswith(b"erase\t")
    }
    receipts = current_values(old, "privacy-receipts")
    waiting: dict[str, bytes] = {}
    with TopicReader(old, ["privacy-requests"]) as reader:
        for record in reader.read_to_end():
            try:
                request = msgspec.json.decode(record.value or b"", type=PrivacyRequest)
            except UNREADABLE:
                continue  # it is no request: the role says so
            receipt = receipts.get(request.request_id.encode())
            is_open = receipt is None or msgspec.json.decode(receipt, type=PrivacyReceipt).state == "working"
            if request.request == "erase" and is_open and request.request_id not in decided:
                waiting[request.request_id] = encode(_handed_over(old, request))
    return produce_all(new, "privacy-requests", [(key.encode(), value) for key, value in waiting.items()])


def _handed_over(old: Settings, request: PrivacyRequest) -> PrivacyRequest:
    """Who is named by a profile is named by an identifier: in the other workspace they may have another profile."""
    if not is_profile_id(request.identifier):
        return request
    try:
        document = find_person(request.identifier, partial(current_value, old))
    except LookupFailed:
        return request
    return msgspec.structs.replace(request, identifier=identifiers_of(document)[0])
