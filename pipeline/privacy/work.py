"""One erasure, from the request to the last store: what has been seen of it, and what its receipt says."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from pipeline.privacy.stores import COMPACTED, TRIMMED
from pipeline.records import DestinationErased, Erased, Forgotten, PrivacyReceipt, PrivacyRequest, ReceiptEntry, encode

TOLD_WAIT_MS = 1_500
"""How long after its identifiers were listed as kept out an erasure is decided: by then every ingest has read it, as a
rule, and less stands in `events` that says who it was. Nothing else rests on it: what gets past an ingest that has not,
however late, is kept out by unify, and linked to nobody by identity."""


DESTINATION = "destination "
"""Begins the name of a destination's entry in a receipt."""

FILES = "files of the stores"


class Answers:
    """Which destinations were asked to delete a person, on behalf of which of their actors, and what they answered. A
    dead destination may take days: this goes on after everything else of an erasure is done."""

    def __init__(self) -> None:
        self._asked: set[tuple[str, str]] = set()
        self._answered: dict[tuple[str, str], DestinationErased] = {}

    def take(self, record: Forgotten | DestinationErased) -> None:
        """Take in a record of `privacy-progress`."""
        if isinstance(record, Forgotten):
            self._asked.update((name, record.actor) for name in record.destinations)
        else:
            # The first answer counts: a repetition, after a crash, says the same.
            self._answered.setdefault((record.destination, record.actor), record)

    def entries(self, now_ms: int) -> list[ReceiptEntry]:
        """What a receipt says of the destinations."""
        found = []
        for name in sorted({name for name, _ in self._asked}):
            of = [self._answered.get(one) for one in self._asked if one[0] == name]
            told = [answer for answer in of if answer is not None]
            at = max((answer.at for answer in told), default=now_ms)
            refused = next((answer.detail for answer in told if answer.detail), "")
            if refused:
                how = f"{refused}: see to it there yourself"
                found.append(ReceiptEntry(DESTINATION + name, "impossible", at, how))
            elif len(told) < len(of):
                found.append(ReceiptEntry(DESTINATION + name, "waiting", now_ms, "asked to delete, no answer yet"))
            else:
                found.append(ReceiptEntry(DESTINATION + name, "done", at, "asked to delete, and has"))
        return found


@dataclass(slots=True)
class Erasure:
    """What is known of one erasure. `listed_at`: when the identifiers known beforehand were listed as kept out;
    `asked_at`: when the identity stage was asked; `cleaned_by`: until when the topics are made to let go of what they
    hold; 0 for not yet."""

    request: PrivacyRequest
    subject: str
    listed_at: int = 0
    asked_at: int = 0
    erased: dict[str, int] = field(default_factory=dict)
    erased_at: int = 0
    members: int = 0
    destroyed: set[str] = field(default_factory=set)
    destroyed_at: int = 0
    forgotten: set[str] = field(default_factory=set)
    forgotten_at: int = 0
    cleaned_by: int = 0
    answers: Answers = field(default_factory=Answers)
    by_age: list[ReceiptEntry] = field(default_factory=list)
    finished_at: int = 0
    detail: str = ""
    _seen_at: int = 0

    def take_erased(self, record: Erased, now_ms: int) -> None:
        """The identity stage has decided, about one identifier."""
        self.erased[record.actor] = record.epoch
        self.members = max(self.members, record.members)
        if not self.destroyed_at:
            self.finished_at = 0  # it had been given up a moment too early
        self._reckon(now_ms)

    def take_forgotten(self, record: Forgotten, now_ms: int) -> None:
        """One of the actors has forgotten."""
        self.forgotten.add(record.actor)
        self._reckon(now_ms)

    def _reckon(self, now_ms: int) -> None:
        # A new process reads both topics at once: either kind of record may be the last to come.
        self._seen_at = max(self._seen_at, now_ms)
        if self.is_decided and not self.erased_at:
            self.erased_at = now_ms
        if self.is_forgotten and not self.forgotten_at:
            self.forgotten_at = self._seen_at

    @property
    def is_decided(self) -> bool:
        """Whether every identifier of the person is known. A later erasure of one of them may have taken the place of
        what was decided of it; then what it has forgotten still says that it was one of these."""
        return 0 < self.members <= len(self.erased.keys() | self.forgotten)

    @property
    def is_forgotten(self) -> bool:
        """Whether every actor has forgotten."""
        return self.is_decided and self.forgotten >= self.erased.keys()

    def receipt(self, compacted: Iterable[str], seals: bool, now_ms: int) -> PrivacyReceipt:
        """What there is to say now; `compacted`: what is made to let go of it."""
        request = self.request

        def step(store: str, at: int, how: str) -> ReceiptEntry:
            return ReceiptEntry(store, "done" if at else "waiting", at or now_ms, how)

        stores = [
            step("state of identity", self.erased_at, "edges and groups are gone; a keyed hash stays"),
            step("state of unify", self.forgotten_at, "profile, fragments, evidence are gone; a keyed hash stays"),
        ]
        if seals:
            stores.append(step("events", self.destroyed_at, "the keys of their routes are destroyed"))
        else:
            how = "they are not sealed: they stay until their retention ends"
            stores.append(ReceiptEntry("events", "impossible", now_ms, how))
        stores.append(step("exports", self.destroyed_at, "files that were exported for them are deleted"))
        if self.forgotten_at:
            state: Literal["done", "by"] = "done" if now_ms >= self.cleaned_by else "by"
            how = "compaction, or deletion of what was consumed"
            stores += [ReceiptEntry(name, state, self.cleaned_by, how) for name in compacted]
            stores.append(ReceiptEntry(FILES, state, self.cleaned_by, "rewritten"))
        stores += self.answers.entries(now_ms)
        stores += self.by_age
        over = bool(self.forgotten_at) and (bool(self.destroyed_at) or not seals)
        return PrivacyReceipt(
            request_id=request.request_id,
            request=request.request,
            subject=self.subject,
            requested_at=request.at,
            state="done" if over else "working",
            by=request.by,
            identifiers=len(self.erased),
            finished_at=self.forgotten_at if over else 0,
            stores=stores,
            detail=self.detail,
        )


def saying(receipt: PrivacyReceipt) -> bytes:
    """What a receipt says; the time of what is still waited for is nothing new, nor in which order it is said."""
    told = sorted((entry for entry in receipt.stores if entry.state != "waiting"), key=lambda entry: entry.store)
    return encode([receipt.state, receipt.identifiers, told, len(receipt.stores)])


def is_being_cleaned(entry: ReceiptEntry) -> bool:
    """Whether a topic or file still is made to let go of the person."""
    return entry.state == "by" and entry.store in (*COMPACTED, *TRIMMED, FILES)
