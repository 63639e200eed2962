"""The ingest stage: it keeps no state, and every raw record ends as exactly one event or exactly one dead letter, or is
skipped by a mapping and counted."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from pipeline.identifiers import Keys
from pipeline.identity import IdentityRules
from pipeline.ingest.clean import NO_CHECKS, Checks, clean
from pipeline.ingest.decode import decode, out_of_bounds
from pipeline.ingest.guard import Vault, admit, mentions
from pipeline.ingest.mapping import mapped
from pipeline.ingest.outcomes import Emit, Outcome, Refusal, Skip
from pipeline.ingest.times import came
from pipeline.records import CaughtUp, DeadLetter, encode
from pipeline.runtime.ports import Outputs, Record, State

CAUGHT_UP_EVERY_MS = 1_000
# Asking costs the door a few requests to the broker: while the answer is no, this is how long it is not asked again.
ASK_AGAIN_MS = 250
# What the broker stamped a moment before it was asked may not have been visible then, its clock may be a little behind
# ours, and what an actor forwards to another takes two transactions: nothing is said of the last moment before asking.
ON_ITS_WAY_MS = 200
# Bytes are base64 in JSON: this much still fits a record of the 1 MB that brokers and clients take unless told.
MAX_KEPT_BYTES = 700_000
MAX_EVENT_BYTES = 900_000


def ingest(
    record: Record,
    now_ms: int,
    rules: IdentityRules,
    checks: Checks = NO_CHECKS,
) -> Outcome:
    """What becomes of a raw record. Never raises, whatever the bytes."""
    value = record.value
    mapping = checks.mappings.by_topic.get(record.topic)
    if mapping is not None:
        made = mapped(mapping, record, checks.schema_of)
        if not isinstance(made, bytes):
            return made
        value = made
    raw = decode(value)
    if isinstance(raw, Refusal):
        return raw
    position = f"{record.topic}/{record.partition}/{record.offset}"
    event = clean(raw, position, record.timestamp_ms, came(record.appended_ms, now_ms), rules, checks)
    if isinstance(event, Refusal):
        return event
    encoded = encode(event)
    # A number may be written longer than it came: 1e15 becomes sixteen digits.
    if len(encoded) > MAX_EVENT_BYTES:
        return Refusal("too_large", f"Written out, the event has {len(encoded):,} bytes, of {MAX_EVENT_BYTES:,}.")
    if checks.cleaning.cleanings:
        # What a reference, a function or a default brought in is held to the bounds of what came.
        sections = (("properties", event.properties), ("traits", event.traits), ("context", event.context))
        beyond = out_of_bounds(encoded, sections)
        if beyond is not None:
            return beyond
    return Emit(event, encoded)


def dead_letter(record: Record, refusal: Refusal, now_ms: int, with_content: bool = True) -> DeadLetter:
    """The dead letter of a refused record, with its original bytes as far as a record holds them."""
    value, key, detail = record.value, record.key, refusal.detail
    if not with_content:
        value, key, detail = None, None, "It names somebody who was erased: its content is not kept."
    if value is not None and len(value) > MAX_KEPT_BYTES:
        detail += f" The first {MAX_KEPT_BYTES:,} bytes are kept here; the whole is at the position it came from."
        value = value[:MAX_KEPT_BYTES]
    return DeadLetter(
        reason=refusal.reason,
        detail=detail,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        at=now_ms,
        value=value,
        key=key[: MAX_KEPT_BYTES // 100] if key is not None else None,
        pointer=refusal.pointer,
    )


def caught_up_due(asked_ms: int, was_at_end: bool, now_ms: int) -> bool:
    """Whether it is time to ask again if every source is read to its end; a clock set back is no reason to wait."""
    wait_ms = CAUGHT_UP_EVERY_MS if was_at_end else ASK_AGAIN_MS
    return not asked_ms <= now_ms < asked_ms + wait_ms


def _texts_of(record: Record) -> list[bytes]:
    """The bytes of a record in which an identifier may stand. A key is one text."""
    key = [] if record.key is None else [b'"%b"' % record.key[:512]]
    return key if record.value is None else [*key, record.value]


def _no_checks() -> Checks:
    return NO_CHECKS


def _never() -> bool | None:
    return False


def _uncounted(outcome: str, reason: str, records: int) -> None:
    return None


class IngestStage:
    """Ingest as the runtime runs it, one object per task.

    `rules` and `checks` give what is in force; they are asked once per batch. `now_ms` is the door's clock: it
    stamps what carries no receivedAt. `counted(outcome, reason, records)` is told once per batch of ("emitted", ""),
    ("refused", reason), ("flagged", flag), ("skipped", reason) and ("kept_out", ""). `vault` seals events and says who
    was erased and is kept out; without, neither is done.

    `sources_at_end` tells whether everything the source topics held when it was asked has been committed by the whole
    group: what another worker has read and not committed may still come to stand behind our record. None: it is still
    being found out, and events need not wait for it; the next call goes on with the same question. So the answer can be
    yes in a steady stream too, where nobody is ever at the end of this very moment. Give it to the stage of one task
    only; the others stay silent.
    """

    def __init__(
        self,
        keys: Keys,
        rules: Callable[[], IdentityRules],
        now_ms: Callable[[], int],
        partitions: int,
        sources_at_end: Callable[[], bool | None] = _never,
        counted: Callable[[str, str, int], None] = _uncounted,
        checks: Callable[[], Checks] = _no_checks,
        vault: Vault | None = None,
    ) -> None:
        self._keys = keys
        self._vault = vault
        self._rules = rules
        self._now_ms = now_ms
        self._partitions = partitions
        self._sources_at_end = sources_at_end
        self._counted = counted
        self._counts: Counter[tuple[str, str]] = Counter()
        self._checks = checks
        self._rules_of_batch: IdentityRules | None = None
        self._checks_of_batch = NO_CHECKS
        self._asked_ms = 0
        self._awaits_answer = False
        self._was_at_end = False

    def step(self, record: Record, state: State, out: Outputs) -> None:
        """Send one raw record on, as an event or as a dead letter."""
        rules = self._rules_of_batch
        if rules is None:
            rules = self._rules_of_batch = self._rules()
            self._checks_of_batch = self._checks()
        now_ms = self._now_ms()
        outcome = ingest(record, now_ms, rules, self._checks_of_batch)
        if isinstance(outcome, Emit):
            event = outcome.event
            value = outcome.value
            actor = self._keys.actor(event.identifiers[0])
            if self._vault is not None:
                flags = len(event.flags)
                if not admit(event, self._keys, self._vault, out):
                    self._counts["kept_out", ""] += 1
                    return
                if len(event.flags) != flags:
                    value = encode(event)
                value = self._vault.seal(actor, event.event, value)
            out.log("events", actor, value)
            self._counts["emitted", ""] += 1
            for flag in event.flags:
                # Without the namespace behind the colon: producers may invent any number of them.
                self._counts["flagged", flag.partition(":")[0]] += 1
        elif isinstance(outcome, Skip):
            self._counts["skipped", outcome.reason] += 1
        else:
            # A source may have more partitions than the dead letters have.
            partition = record.partition % self._partitions
            letter = dead_letter(record, outcome, now_ms, not self._names_erased(record, rules))
            out.log("dead-letters", letter.key, encode(letter), partition)
            self._counts["refused", outcome.reason] += 1

    def _names_erased(self, record: Record, rules: IdentityRules) -> bool:
        vault = self._vault
        if vault is None or not vault.kept_out:
            return False
        return any(mentions(each, rules, self._keys, vault.kept_out) for each in _texts_of(record))

    def finish(self, state: State, out: Outputs) -> None:
        """Tell what was counted; the next batch asks for the rules again."""
        self._rules_of_batch = None
        for (outcome, reason), records in self._counts.items():
            self._counted(outcome, reason, records)
        self._counts.clear()

    def wake(self, state: State, out: Outputs, now_ms: int) -> None:
        """Once a second, while the sources are read, say in every partition of `events` until when they are."""
        if not self._awaits_answer:
            if not caught_up_due(self._asked_ms, self._was_at_end, now_ms):
                return
            self._asked_ms = now_ms
        answer = self._sources_at_end()
        self._awaits_answer = answer is None
        if answer is None:
            return
        self._was_at_end = answer
        if not answer:
            return
        value = encode(CaughtUp(received=min(self._asked_ms, now_ms) - ON_ITS_WAY_MS))
        for partition in range(self._partitions):
            out.log("events", None, value, partition)

    def forget(self) -> None:
        """The batch was aborted, and with it perhaps what was said last: ask again soon."""
        self._rules_of_batch = None
        self._counts.clear()
        self._was_at_end = False

    def encode(self, key: bytes, value: Any) -> bytes:
        """Ingest keeps no state."""
        raise TypeError("ingest keeps no state")

    def decode(self, key: bytes, data: bytes) -> Any:
        """Ingest keeps no state."""
        raise TypeError("ingest keeps no state")
