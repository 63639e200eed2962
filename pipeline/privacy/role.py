"""The privacy role: carries requests out, destroys keys, hastens topics, and writes receipts. One runs per workspace.

    request    keep out who is known by the identifier, and wait until every ingest knows       suppressions
               ask for who they are by the spellings of today, if theirs are of before          privacy-requests
    erase      ask the identity stage: it lists the person's identifiers and tells their actors identity-edges
    Erased     keep each identifier out, and destroy the key of its events                      keys, suppressions
    Forgotten  an actor has forgotten; when all have, topics are made to let go of it           topic settings
    receipt    what was done, store by store, whenever that changes                             privacy-receipts

Everything it knows it has read from the log: a new process reads it again, and goes on.
"""

import logging
import os
import re
import shutil
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec
from prometheus_client import Gauge

from pipeline.admin import alter_topics, topic_configs, topic_partitions, wanted_topics
from pipeline.definitions.log import KafkaPlans
from pipeline.errors import BrokerError, InputError, LookupFailed
from pipeline.identifiers import Keys
from pipeline.identity import IdentityRules
from pipeline.observed import served
from pipeline.privacy.keeping import Keeping
from pipeline.privacy.requests import Exporting, Outcome, carry_out, export_folder
from pipeline.privacy.stores import COMPACTED, TRIMMED, archived, by_age, hastened, is_hastened, kept_by_age, restored
from pipeline.privacy.vault import KEYS, SUPPRESSIONS
from pipeline.privacy.whom import NotTakenInError, Whom
from pipeline.privacy.work import DESTINATION, TOLD_WAIT_MS, Answers, Erasure, is_being_cleaned, saying
from pipeline.records import (
    Erased,
    EraseRequest,
    Forgotten,
    PrivacyProgress,
    PrivacyReceipt,
    PrivacyRequest,
    ReceiptEntry,
    ResolveOn,
    Tick,
    encode,
)
from pipeline.runtime.kafka.doors import TopicReader, produce_all, produce_to
from pipeline.runtime.overlay import RESERVED
from pipeline.runtime.ports import Record
from pipeline.settings import Settings
from pipeline.topology import DELIVERIES

_log = logging.getLogger(__name__)
REQUESTS, RECEIPTS, PROGRESS = "privacy-requests", "privacy-receipts", "privacy-progress"
DECISIONS = "identity-decisions"
NUDGE_KEY = RESERVED + b"nudge"
"""A tombstone of a key that never had a value: an idle partition needs a record to begin a new segment."""

_NOBODY = "nobody is known by this identifier: they never were, or were erased"
_NOT_TAKEN_IN = "none of their identifiers is one that ingest takes in by the rules in force: replay first"
_TURN_S = 0.2
# A folder is called so.
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_READ_FIRST = {RECEIPTS: 0, KEYS: 1, SUPPRESSIONS: 2, REQUESTS: 3}
_decode_request = msgspec.json.Decoder(PrivacyRequest).decode
_decode_receipt = msgspec.json.Decoder(PrivacyReceipt).decode
_decode_progress = msgspec.json.Decoder(PrivacyProgress).decode


class PrivacyRole:
    """One process of the role. `turn` does what there is to do now."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._keys = Keys(settings.secret_bytes())
        self._within_ms = settings.forget_within_s * 1000
        self._lag_ms = self._within_ms // 10
        self._kept = Keeping(settings)
        self._receipts: dict[str, PrivacyReceipt] = {}
        self._said: dict[str, bytes] = {}
        self._erasures: dict[str, Erasure] = {}
        self._waiting: list[PrivacyRequest] = []
        self._exports: deque[PrivacyRequest] = deque()
        self._exporting: Exporting | None = None
        self._others: list[Erased] = []
        self._answers: dict[str, Answers] = {}
        self._answered: set[str] = set()
        self._has_resumed = False
        self._cleaning: dict[str, int] = {}
        self._hastened_until = 0
        self._nudged_at = 0
        self._by_age_of: tuple[int, list[ReceiptEntry]] = (0, [])
        self._plans = KafkaPlans(settings)
        self._whom = Whom(settings, self._keys, self._rules, self._kept.suppressions)
        self._reader = TopicReader(settings, [RECEIPTS, REQUESTS, DECISIONS, PROGRESS, KEYS, SUPPRESSIONS])
        records = list(self._reader.read_to_end())
        # What was done is read before what was asked for, and that before what came of it.
        for record in sorted(records, key=lambda record: _READ_FIRST.get(record.topic, len(_READ_FIRST))):
            if record.topic not in _READ_FIRST:
                self._begin_again()
            self._take(record)
        self._begin_again()

    @property
    def working(self) -> int:
        """How many requests are being carried out."""
        waiting = len(self._waiting) + len(self._exports) + (self._exporting is not None)
        return waiting + sum(1 for one in self._receipts.values() if one.state == "working")

    def _rules(self) -> IdentityRules:
        return self._plans.latest().identity

    # ------------------------------------------------------------------------------------------------ what is read

    def _take(self, record: Record) -> None:
        key, value = record.key or b"", record.value
        if record.topic in (KEYS, SUPPRESSIONS):
            self._kept.take(record.topic, key, value)
        elif value is None:
            return
        elif record.topic == RECEIPTS:
            receipt = _decode_receipt(value)
            self._receipts[receipt.request_id] = receipt
            self._said[receipt.request_id] = saying(receipt)
        elif record.topic == REQUESTS:
            request = self._understood(record)
            if request is not None:
                self._begin(request)
        elif record.topic == DECISIONS and key.startswith(b"erase\t"):
            erased = msgspec.json.decode(value, type=Erased)
            erasure = self._erasures.get(erased.request_id)
            if erasure is not None:
                erasure.take_erased(erased, record.timestamp_ms)
            else:
                # Decided for another reason: a replay that copies what was erased before.
                self._others.append(erased)
        elif record.topic == PROGRESS:
            told = _decode_progress(value)
            self._answers.setdefault(told.request_id, Answers()).take(told)
            self._answered.add(told.request_id)
            erasure = self._erasures.get(told.request_id)
            if erasure is not None and isinstance(told, Forgotten):
                erasure.take_forgotten(told, record.timestamp_ms)

    def _understood(self, record: Record) -> PrivacyRequest | None:
        """The request in a record, about an identifier as the pipeline writes it, or a profile_id: programs write to
        the topic too, and write what people typed. None if it is none, was carried out, or cannot be."""
        try:
            request = _decode_request(record.value or b"")
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            # It would end the role at every start for as long as the topic keeps it, and every erasure waits for it.
            where = f"{record.topic}/{record.partition}/{record.offset}"
            _log.error("%s is no request (%s), and nothing comes of it", where, type(error).__name__)
            return None
        known = self._receipts.get(request.request_id)
        if known is not None and known.state != "working":
            return None
        if not _ID.fullmatch(request.request_id):
            self._say(self._receipt(request, "failed", f"a request's id is {_ID.pattern}"))
            return None
        try:
            return msgspec.structs.replace(request, identifier=self._whom.asked_for(request))
        except InputError:
            detail = "the identifier is none of a person: NAMESPACE:VALUE, or a profile_id"
            self._say(self._receipt(request, "failed", detail))
            return None

    def _begin(self, request: PrivacyRequest) -> None:
        if request.request == "erase":
            self._begin_erasure(request, self._receipts.get(request.request_id))
        elif request.request == "export":
            self._exports.append(request)
        else:
            self._waiting.append(request)

    def _begin_again(self) -> None:
        """Go on with erasures whose request the topic has let go of, a day after it was made."""
        for receipt in self._receipts.values():
            if receipt.request == "erase" and receipt.state == "working":
                request = PrivacyRequest(receipt.request_id, "erase", "", receipt.requested_at, receipt.by)
                self._begin_erasure(request, receipt)

    def _begin_erasure(self, request: PrivacyRequest, begun: PrivacyReceipt | None) -> None:
        # Whom a profile_id led to stands on the receipt: by now it may lead to nobody.
        subject = begun.subject if begun is not None else self._keys.actor(request.identifier).decode()
        answers = self._answers.setdefault(request.request_id, Answers())
        detail = begun.detail if begun is not None else ""
        self._erasures.setdefault(request.request_id, Erasure(request, subject, answers=answers, detail=detail))

    # ------------------------------------------------------------------------------------------------ what is done

    def turn(self, now_ms: int) -> None:
        """Read what has come, and take every request a step on."""
        for record in self._reader.read(10_000, _TURN_S):
            self._take(record)
        if not self._has_resumed:
            self._resume(now_ms)
            self._has_resumed = True
        for asked in self._waiting:
            request = self._meant(asked, now_ms)
            if request is not None:
                self._carry_out(request, now_ms)
        self._waiting.clear()
        self._export(now_ms)
        self._forget_others(now_ms)
        for erasure in self._erasures.values():
            if not erasure.finished_at:
                self._advance(erasure, now_ms)
        self._say_answers(now_ms)
        self._say_cleaned(now_ms)
        if self._hastened_until:
            if now_ms >= self._hastened_until:
                self._relax()
            elif now_ms - self._nudged_at >= self._lag_ms // 2:
                self._nudged_at = now_ms
                self._nudge()

    def _forget_others(self, now_ms: int) -> None:
        """Who was erased in the workspace that this one is copied from: what the copy had brought of them goes too."""
        others = {one.actor: (one.epoch, one.received, one.request_id) for one in self._others}
        self._others.clear()
        if self._kept.has_news(others):
            # First: a process that ends here finds them again.
            self._hasten(now_ms + self._within_ms, now_ms)
        self._kept.destroy(others)

    def _advance(self, erasure: Erasure, now_ms: int) -> None:
        if not erasure.erased:
            if not erasure.request.identifier:
                detail = "the topic privacy-requests has let go of it before it was decided: ask again"
                self._give_up(erasure, detail, now_ms)
                return
            if not erasure.listed_at:
                try:
                    self._list(erasure, now_ms)
                except LookupFailed:
                    self._give_up(erasure, _NOBODY, now_ms)
                    return
            elif not erasure.asked_at and now_ms - erasure.listed_at >= TOLD_WAIT_MS:
                erasure.asked_at = now_ms
                request = erasure.request
                asked = EraseRequest(request.identifier, now_ms, request.request_id, keep_out=True)
                produce_all(self._settings, "identity-edges", [(None, encode(asked))])
        elif erasure.is_decided and not erasure.destroyed_at:
            request, at = erasure.request, max(now_ms, erasure.asked_at)
            self._kept.destroy({actor: (epoch, at, request.request_id) for actor, epoch in erasure.erased.items()})
            erasure.destroyed_at = now_ms
            self._kept.release(erasure.request.request_id, erasure.erased)
            self._delete_exports(erasure)
        if erasure.forgotten_at and not erasure.by_age:
            erasure.cleaned_by = self._time_left(erasure.forgotten_at + self._within_ms, now_ms)
            self._hasten(erasure.cleaned_by, now_ms)
            if self._by_age_of[0] != now_ms:
                self._by_age_of = now_ms, self._by_age(now_ms)
            erasure.by_age = self._by_age_of[1]
        receipt = erasure.receipt((*COMPACTED, *TRIMMED), self._settings.seal_events, now_ms)
        self._say(receipt)
        if receipt.state == "done" and now_ms >= erasure.cleaned_by:
            erasure.finished_at = now_ms

    def _list(self, erasure: Erasure, now_ms: int) -> None:
        """Keep out everybody it is about. Who is known by a spelling of before is somebody else by the one of today,
        and would come back by that: by the rules in force they are one person. That one gets a request of its own."""
        request = erasure.request
        known = self._whom.known(request.identifier)
        erasure.request = msgspec.structs.replace(request, identifier=known[0])
        erasure.subject = self._keys.actor(known[0]).decode()
        others = [
            PrivacyRequest(self._id_behind(request.request_id, text), "erase", text, now_ms)
            for text in self._whom.spelled_otherwise(known)
        ]
        if others:
            said = [(one.request_id.encode(), encode(msgspec.structs.replace(one, by=request.by))) for one in others]
            produce_all(self._settings, REQUESTS, said)
            erasure.detail = "by the spelling of today: " + ", ".join(one.request_id for one in others)
        self._kept.keep_out((self._keys.actor(one).decode() for one in known), now_ms, request.request_id)
        erasure.listed_at = now_ms

    def _id_behind(self, request_id: str, text: str) -> str:
        """The id of the request about one more spelling, the same at every start. An id has a bound: the first one's
        beginning tells people what it belongs to, and all of it makes it another than that of any other request."""
        return f"{request_id[:60]}-{self._keys.actor(f'{request_id} {text}')[:16].decode()}"

    def _give_up(self, erasure: Erasure, detail: str, now_ms: int) -> None:
        receipt = self._receipt(erasure.request, "failed", detail, now_ms)
        self._say(msgspec.structs.replace(receipt, subject=erasure.subject))
        self._kept.release(erasure.request.request_id, erasure.erased)
        erasure.finished_at = now_ms

    def _delete_exports(self, erasure: Erasure) -> None:
        """What was exported for this person, under any of their identifiers, and still lies here."""
        theirs = {erasure.subject, *erasure.erased}
        for receipt in self._receipts.values():
            if receipt.request == "export" and receipt.subject in theirs:
                shutil.rmtree(export_folder(self._settings, receipt.request_id), ignore_errors=True)

    def _export(self, now_ms: int) -> None:
        """One export after the other, beside everything else."""
        done = self._exporting
        if done is not None and not done.is_alive():
            self._exporting = None
            self._carry_out(done.request, now_ms, done.outcome)
        while self._exports and self._exporting is None:
            request = self._meant(self._exports.popleft(), now_ms)
            if request is None:
                continue
            if self._whom.is_kept_out(request.identifier):
                self._carry_out(request, now_ms)
            else:
                self._exporting = Exporting(request, partial(carry_out, self._settings, request))
                self._exporting.start()

    def _meant(self, request: PrivacyRequest, now_ms: int) -> PrivacyRequest | None:
        """The request about an identifier by which it can be carried out. None, and a receipt, if there is none."""
        try:
            return msgspec.structs.replace(request, identifier=self._whom.spoken_for(request))
        except LookupFailed as error:
            detail = _NOT_TAKEN_IN if isinstance(error, NotTakenInError) else _NOBODY
            self._say(self._receipt(request, "failed", detail, now_ms))
            return None

    def _carry_out(self, request: PrivacyRequest, now_ms: int, outcome: Callable[[], Outcome] | None = None) -> None:
        """Carry out a request that is no erasure, or take what came of it, and say so."""
        stores: list[ReceiptEntry]
        try:
            if self._whom.is_kept_out(request.identifier):
                # What an export said of them would stay, and what is said in their name would bring them back.
                raise LookupFailed("they were erased, or are being erased")
            stores, detail = outcome() if outcome is not None else carry_out(self._settings, request)
            state = "done"
        except BrokerError:
            raise
        except Exception as error:  # noqa: BLE001 - a full disk, or whatever the file system of an archive raises
            # What it says may name the person: neither the receipt nor the log repeats it. It is asked for again by who
            # wants it: a request without a receipt would end this role at every start, and every erasure waits for it.
            nobody = isinstance(error, LookupFailed)
            stores, detail, state = [], _NOBODY if nobody else type(error).__name__, "failed"
            if request.request == "export":
                # They may be erased in the meantime, and what there is of it would be found by nobody.
                shutil.rmtree(export_folder(self._settings, request.request_id), ignore_errors=True)
            if not nobody and not isinstance(error, ValueError):
                _log.error("%s %s failed: %s", request.request, request.request_id, _where(error))
        self._say(self._receipt(request, state, detail, now_ms, stores))

    def _receipt(
        self, request: PrivacyRequest, state: str, detail: str, now_ms: int = 0, stores: Sequence[ReceiptEntry] = ()
    ) -> PrivacyReceipt:
        """The receipt of what was carried out at once, or cannot be."""
        return PrivacyReceipt(
            request_id=request.request_id,
            request=request.request,
            subject=self._keys.actor(request.identifier).decode(),
            requested_at=request.at,
            state=state,  # type: ignore[arg-type]
            by=request.by,
            finished_at=now_ms or time.time_ns() // 1_000_000,
            stores=list(stores),
            detail=detail,
        )

    def _say_answers(self, now_ms: int) -> None:
        """Destinations may answer when all else of an erasure is done, and this process knows its receipt only."""
        for request_id in self._answered:
            erasure, receipt = self._erasures.get(request_id), self._receipts.get(request_id)
            if receipt is not None and (erasure is None or erasure.finished_at):
                others = [entry for entry in receipt.stores if not entry.store.startswith(DESTINATION)]
                stores = [*others, *self._answers[request_id].entries(now_ms)]
                self._say(msgspec.structs.replace(receipt, stores=stores))
        self._answered.clear()

    def _say(self, receipt: PrivacyReceipt) -> None:
        """Write a receipt, if it says something new."""
        said = saying(receipt)
        if self._said.get(receipt.request_id) != said:
            self._said[receipt.request_id] = said
            self._receipts[receipt.request_id] = receipt
            produce_all(self._settings, RECEIPTS, [(receipt.request_id.encode(), encode(receipt))])
            _log.info("%s %s: %s", receipt.request, receipt.request_id, receipt.state)

    # -------------------------------------------------------------------------------------------------- the topics

    def _resume(self, now_ms: int) -> None:
        """Go on with making the topics let go of people: when an erasure is done, they have not yet."""
        for receipt in list(self._receipts.values()):
            if receipt.request != "erase" or receipt.state != "done":
                continue
            promised = max((one.at for one in receipt.stores if is_being_cleaned(one)), default=0)
            if promised:
                until = self._cleaning[receipt.request_id] = self._time_left(promised, now_ms)
                self._say_of_cleaned(receipt, "by", until)
        if self._cleaning:
            self._hasten(max(self._cleaning.values()), now_ms)
        elif any(map(is_hastened, topic_configs(self._settings, self._hastening()).values())):
            # For somebody who has no receipt here, or by a process that ended before it could relax them.
            self._hasten(now_ms + self._within_ms, now_ms)

    def _time_left(self, until: int, now_ms: int) -> int:
        """By when the topics have let go of somebody. Of a time in which nobody nudged them they have made nothing."""
        return until if until - now_ms >= self._within_ms // 2 else now_ms + self._within_ms

    def _say_cleaned(self, now_ms: int) -> None:
        for request_id in [one for one, until in self._cleaning.items() if now_ms >= until]:
            self._say_of_cleaned(self._receipts[request_id], "done", self._cleaning.pop(request_id))

    def _say_of_cleaned(self, receipt: PrivacyReceipt, state: Literal["done", "by"], at: int) -> None:
        stores = [
            msgspec.structs.replace(one, state=state, at=at) if is_being_cleaned(one) else one for one in receipt.stores
        ]
        self._say(msgspec.structs.replace(receipt, stores=stores))

    def _by_age(self, now_ms: int) -> list[ReceiptEntry]:
        settings = self._settings
        prefix = settings.topic(DELIVERIES.name)
        there = topic_partitions(settings)
        destinations = sorted(name.removeprefix(prefix) for name in there if name.startswith(prefix))
        names = {settings.topic(name): name for name in kept_by_age(settings.sources, destinations)}
        configs = topic_configs(settings, names)
        found = [by_age(names[real], config, now_ms) for real, config in sorted(configs.items())]
        return [*found, archived(settings.archive_every_s, now_ms)] if settings.archive else found

    def _hasten(self, until: int, now_ms: int) -> None:
        settings = self._settings
        is_hastened_already, self._hastened_until = bool(self._hastened_until), max(self._hastened_until, until)
        if is_hastened_already:
            return  # they are nudged often enough for whoever comes later
        alter_topics(settings, {real: hastened(self._lag_ms, name) for real, name in self._hastening().items()})
        self._nudge()
        self._nudged_at = now_ms

    def _hastening(self) -> dict[str, str]:
        return {self._settings.topic(name): name for name in (*COMPACTED, *TRIMMED)}

    def _relax(self) -> None:
        settings = self._settings
        self._hastened_until = 0
        wanted = {topic.name: topic.config for topic in wanted_topics(settings)}
        names = self._hastening()
        changed = {
            real: restored(wanted[real], names[real])
            for real, config in topic_configs(settings, names).items()
            if is_hastened(config)
        }
        if changed:
            alter_topics(settings, changed)

    def _nudge(self) -> None:
        settings = self._settings
        counts = topic_partitions(settings)
        tick, nothing = encode(Tick(clock=0)), encode(ResolveOn(generation=-1, received=0))
        records: list[tuple[str, int, bytes | None, bytes | None, int]] = []
        for name in (*COMPACTED, *TRIMMED):
            key, value = (None, tick if name == "links" else nothing) if name in TRIMMED else (NUDGE_KEY, None)
            records += [(name, partition, key, value, 0) for partition in range(counts[settings.topic(name)])]
        # With one client: one for each partition took half a second, and requests waited for all of them.
        produce_to(settings, records)

    def close(self) -> None:
        """Let go of everything."""
        self._plans.close()
        self._reader.close()
        self._kept.close()


def _where(error: Exception) -> str:
    places = traceback.extract_tb(error.__traceback__)[-3:]
    said = f" ({os.strerror(error.errno)})" if isinstance(error, OSError) and error.errno else ""
    return f"{type(error).__name__}{said} at " + " < ".join(
        f"{Path(p.filename).name}:{p.lineno}" for p in reversed(places)
    )


def run(settings: Settings, until: Callable[[], bool]) -> None:
    """Run the role until `until()`. Raises HeadwaterError when it cannot go on; started again, it does."""
    role = PrivacyRole(settings)
    working = Gauge("headwater_privacy_working", "Requests that are being carried out", registry=served(settings))
    working.set_function(lambda: role.working)
    try:
        while not until():
            role.turn(time.time_ns() // 1_000_000)
    finally:
        role.close()
