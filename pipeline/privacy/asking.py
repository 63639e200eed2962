"""Making a request about a person's data, at any door: the record in `privacy-requests`, and a line in the audit."""

import secrets
import time
from datetime import UTC, datetime
from typing import Any

from pipeline.privacy import audit
from pipeline.records import PrivacyRequest, RequestKind, encode
from pipeline.runtime.kafka.doors import produce_all
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
    """Make a request about the person behind a normalised identifier; its id. Raises BrokerError."""
    now = datetime.now(UTC)
    request_id = f"{now:%Y%m%d}-{secrets.token_hex(5)}"
    request = PrivacyRequest(
        request_id, kind, identifier, time.time_ns() // 1_000_000, by, traits=traits or {}, lift=lift
    )
    produce_all(settings, "privacy-requests", [(request_id.encode(), encode(request))])
    audit.note(settings, _ACTIONS[kind], identifier, "lifted" if lift else "", request_id, by)
    return request_id
