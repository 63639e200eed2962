"""The audit log: who applied, looked up, exported, erased what and when. Nobody's data stands in it."""

import getpass
import time
from typing import Any

from pipeline.identifiers import Keys
from pipeline.records import AuditEntry, encode
from pipeline.runtime.kafka.doors import produce_all
from pipeline.settings import Settings

TOPIC = "audit"


def note(
    settings: Settings, action: Any, identifier: str = "", what: str = "", request_id: str = "", by: str = ""
) -> None:
    """Write down what somebody has just done; `identifier` becomes a keyed hash. `by` is who runs this, if nobody is
    named. Raises BrokerError."""
    subject = Keys(settings.secret_bytes()).actor(identifier).decode() if identifier else ""
    entry = AuditEntry(time.time_ns() // 1_000_000, by or getpass.getuser(), action, subject, what, request_id)
    produce_all(settings, TOPIC, [(None, encode(entry))])
