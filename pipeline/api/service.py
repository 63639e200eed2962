"""What the handlers share: the read model, who listens, the rules in force, and the patience to wait for a record."""

import asyncio
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from pipeline.api.access import Access, Caller
from pipeline.api.audit import Audit
from pipeline.api.follower import TOPICS, Follower
from pipeline.api.missed import read_missed
from pipeline.api.model import ReadModel, decoded
from pipeline.api.positions import Place, parse_place, parse_position
from pipeline.api.problems import Problem
from pipeline.api.pulse import Pulse
from pipeline.api.streams import Change, Hub, Places
from pipeline.contracts import ContractsPlan
from pipeline.definitions.log import KafkaPlans
from pipeline.errors import BrokerError, HeadwaterError, InputError, LookupFailed
from pipeline.identifiers import ACCOUNT, Identifier, Keys, identifier
from pipeline.identity import Junk
from pipeline.in_charge import NotInChargeError
from pipeline.lookup import (
    as_kept,
    as_named,
    identifier_or_profile,
    is_profile_id,
    normalised,
    person,
    person_or_profile,
    typed_profile_id,
)
from pipeline.plans import GenerationPlan
from pipeline.runtime.kafka.doors import KAFKA_FAILURES, current_values, topic_partitions
from pipeline.runtime.ports import Record
from pipeline.settings import Settings

T = TypeVar("T")

_MAX_WAITING = 1_000
_CATCHING_UP = 4
_DECISIONS_EVERY_S = 2.0
_DEFAULT_TIMEOUT_MS = 1_000
_ASK_PARTITIONS_EVERY_S = 10.0
_ASK_PARTITIONS_WITHIN_S = 1.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")

_CANNOT_SAY: tuple[type[Exception], ...] = (HeadwaterError, *KAFKA_FAILURES)

_log = logging.getLogger(__name__)


class Service:
    """One process of the API, behind its routes. Its methods run in the event loop unless they say otherwise."""

    def __init__(
        self, settings: Settings, follower: Follower, plans: KafkaPlans, access: Access, audit: Audit, hub: Hub
    ) -> None:
        self.settings = settings
        self.follower = follower
        self.plans = plans
        self.access = access
        self.audit = audit
        self.hub = hub
        self.pulse: Pulse | None = None
        self._decisions: tuple[float, list[bytes]] = (-_DECISIONS_EVERY_S, [])
        self._contracts: ContractsPlan | None = None
        self._plan: GenerationPlan = plans.latest()
        self._plans_fail = False
        self._ends = Ends(follower.ends)
        self._partitions: dict[str, tuple[float, int]] = {}
        self._keys = Keys(settings.secret_bytes())
        self._waiting: set[tuple[Callable[[], bool], asyncio.Future[None]]] = set()
        self._catching_up = asyncio.Semaphore(_CATCHING_UP)
        self.requests: Counter[tuple[str, int]] = Counter()

    @property
    def model(self) -> ReadModel:
        """The tables."""
        return self.follower.model

    def begin(self) -> None:
        """Follow the topics; from now on what is read is told to those who wait and listen."""
        self.look_at_definitions()  # before anything is answered: what labels hide is hidden from the first answer on
        loop = asyncio.get_running_loop()
        self.follower.told = lambda records: _soon(loop, self._told, records, self.follower.visible.positions)
        self.follower.start()

    def _told(self, records: Sequence[Record], positions: Mapping[tuple[str, int], int]) -> None:
        self.hub.tell(records, positions)
        for waiting in [one for one in self._waiting if one[0]()]:
            self._waiting.discard(waiting)
            if not waiting[1].done():
                waiting[1].set_result(None)

    def look_at_definitions(self) -> None:
        """Take what the definitions in force say of fields, if it has changed."""
        contracts = self._plan.contracts
        if contracts is not self._contracts:
            self._contracts = contracts
            rules = self._plan.activation.data.computed
            self.access.look_at_contracts(contracts, {name: rule.labels for name, rule in rules.items()})

    async def follow_definitions(self) -> None:
        """Look what is in force now. While Kafka does not say, what was in force stays."""
        try:
            self._plan = await asyncio.to_thread(self.plans.latest)
        except _CANNOT_SAY as error:
            if not self._plans_fail:
                _log.warning("the definitions in force cannot be looked up, they stay as they were: %s", error)
            self._plans_fail = True
            return
        self._plans_fail = False
        self.look_at_definitions()

    def names_in_force(self, kind: str) -> list[str]:
        """The names of the definitions of a kind that are in force. Any thread may ask."""
        catalog = self.plans.look()
        return [each.name for each in catalog.of_kind(catalog.latest, kind)]

    def decisions(self) -> list[bytes]:
        """What people decided about identity and is in force, as of two seconds ago at most. Reads from Kafka."""
        at, found = self._decisions
        if time.monotonic() - at > _DECISIONS_EVERY_S:
            found = list(current_values(self.settings, "identity-decisions").values())
            self._decisions = time.monotonic(), found
        return found

    def end_streams(self) -> None:
        """End every stream, so that the process can: clients come back elsewhere, with the last id they saw."""
        self.hub.end()

    def note(self, caller: str, operation: str, subject: str, status: int, profile_id: str = "") -> None:
        """A line in the audit log; `subject` is what `subject_of` or `name_of` gave."""
        self.audit.line(caller, operation, subject, status, profile_id)
        self.requests[operation, status] += 1

    def subject_of(self, *identifiers: str) -> str:
        """Whom a request is about, for the audit: keyed hashes of identifiers as the pipeline writes them, and
        profile_ids, which are hashes already. What is neither may be anybody's name: it is hashed too."""
        found = []
        for text in filter(None, identifiers):
            profile_id = typed_profile_id(text)
            if profile_id is not None:
                found.append(profile_id)
                continue
            try:
                known = normalised(text, self._plan.identity)
            except InputError:
                known = Identifier(text)
            found.append(self._keys.actor(known).decode())
        return " ".join(found)

    def subject_of_account(self, name: str) -> str:
        """The same of an account."""
        return self._keys.actor(identifier(ACCOUNT, self.account(name))).decode()

    def name_of(self, text: str) -> str:
        """What a request is about that is no person: its name, where it can be one."""
        return text if _NAME.fullmatch(text) else self.subject_of(text)

    def freshness(self) -> dict[str, str]:
        """The headers that say how fresh an answer is."""
        return {
            "Cache-Control": "private, no-cache",
            "Headwater-Age-Ms": str(self.age_ms()),
            "Headwater-Position": self.follower.position,
        }

    def age_ms(self) -> int:
        """How long ago everything that had been committed was in the model."""
        return max(0, time.time_ns() // 1_000_000 - self.follower.fresh_at_ms)

    def identifier(self, text: str) -> str:
        """What a caller typed, as the pipeline writes it: a normalised identifier, or a profile_id. Raises Problem."""
        if text.startswith(f"{ACCOUNT}:"):
            return self._keys.profile_id(identifier(ACCOUNT, self.account(text.partition(":")[2])))
        try:
            return as_kept(text, identifier_or_profile(text, self._plan.identity), self._known)
        except InputError as error:
            raise Problem(400, f"{error.what} {error.what_to_do}".strip()) from None

    def person(self, text: str) -> str:
        """The same of what can be said of people only: an identifier. Raises Problem 422."""
        try:
            return person(text, self._plan.identity)
        except InputError as error:
            raise Problem(422, f"{error.what} {error.what_to_do}".strip()) from None

    def _known(self, text: str) -> str | None:
        document = self.model.document(text)
        return decoded(document).profile_id if document is not None else None

    def person_or_profile(self, text: str, whole: bool) -> str:
        """The same, or a profile_id of somebody who is no account; `whole` as in `as_kept`. Raises Problem 422."""
        try:
            wanted = as_kept(text, person_or_profile(text, self._plan.identity), self._known, whole)
        except InputError as error:
            raise Problem(422, f"{error.what} {error.what_to_do}".strip()) from None
        document = self.model.document(wanted) if is_profile_id(wanted) else None
        if document is not None and decoded(document).entity != "person":
            raise Problem(422, f"{text!r} is an account, not a person. name one of its people by their identifier")
        return wanted

    def account(self, name: str) -> str:
        """The name of an account, as ingest cleans it; where nobody is called so, the one that `same` says it means."""
        cleaned = self._plan.identity.clean("group_id", name)
        if isinstance(cleaned, Junk):
            return name
        document = self.model.document
        named = identifier(ACCOUNT, cleaned)
        meant = as_named(named, self._plan.accounts.same, lambda text: document(self._keys.profile_id(text)))
        return meant.partition(":")[2]

    def owner_trait(self, alert: str) -> str:
        """The trait of accounts that says to whom an alert goes; that of alerts which say nothing, where it is gone."""
        every = (one for some in self._plan.accounts.alerts.values() for one in some)
        return next((one.owner for one in every if one.name == alert), "owner")

    async def wait(self, true: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until something is true of the model; whether it came to that in time. Raises Problem 503."""
        if true():
            return True
        if len(self._waiting) >= _MAX_WAITING:
            raise Problem(503, "Too many requests wait for records already.", retry_after="1")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = (true, future)
        self._waiting.add(waiting)
        try:
            await asyncio.wait_for(future, timeout_s)
            return True
        except TimeoutError:
            return False
        finally:
            self._waiting.discard(waiting)

    async def wait_for_record(self, place: Place, timeout_s: float) -> bool:
        """Wait until the effect of a record can be seen in the tables."""
        until = time.monotonic() + timeout_s
        visible = self.follower.visible
        if not await self.wait(lambda: visible.is_visible(place), timeout_s):
            await self._check_place(place)
            return False
        if (place[0], place[1]) in visible.positions and place[0] != "events":
            return True
        # The change that names the event was read; the tables may still lack the rest of the same transaction.
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + until - time.monotonic()):
                ends = await self._ends()
        except TimeoutError:
            return False
        except BrokerError as error:
            raise Problem(503, error.what, retry_after="1") from None
        return await self.wait(lambda: visible.is_reached(ends), max(0.001, until - time.monotonic()))

    async def _check_place(self, place: Place) -> None:
        """Raises Problem 400 if there can be no such record."""
        topic, number, _ = place
        if (topic, number) in self.follower.visible.positions:
            return
        known = {name for name, _ in self.follower.visible.positions}
        if topic in known:
            raise Problem(400, f"wait_for: {topic} has no partition {number}.")
        if topic not in self.settings.sources:
            raise Problem(400, f"wait_for names a record of {', '.join((*self.settings.sources, *TOPICS))}.")
        try:
            async with asyncio.timeout(_ASK_PARTITIONS_WITHIN_S):
                count = await self.in_thread(lambda: self.partitions_of(topic))
        except TimeoutError:
            return  # nobody says that it is not there
        if number >= count:
            raise Problem(400, f"wait_for: {topic} has {count} partitions.")

    async def check_segments(self, caller: Caller, names: Iterable[str]) -> None:
        """Raises Problem 403 if the caller may not know who is in one of these segments, 404 if there is none."""
        wanted = list(names)
        for name in wanted:
            if not caller.hide.sees_segment(name):
                raise Problem(403, "This token does not see who is in that segment.")
        unknown = [name for name in wanted if not self.model.size(name)]
        if unknown:
            catalog = await self.in_thread(self.plans.look)
            for name in unknown:
                if catalog.in_force(catalog.latest, f"segment/{name}") is None:
                    raise Problem(404, "There is no such segment in force.")

    def partitions_of(self, topic: str) -> int:
        """How many partitions a source has, as of ten seconds ago at most. Reads from Kafka."""
        at, count = self._partitions.get(topic, (0.0, 0))
        if not count or time.monotonic() - at > _ASK_PARTITIONS_EVERY_S:
            count = len(topic_partitions(self.settings, [topic]))
            self._partitions[topic] = time.monotonic(), count
        return count

    async def wait_as_asked(self, values: Mapping[str, Any]) -> None:
        """What every answer from the tables waits for: `wait_for`, `Headwater-Position`, within `timeout_ms`. Raises
        Problem 400, 409."""
        timeout_s = (values["timeout_ms"] or _DEFAULT_TIMEOUT_MS) / 1_000
        visible = self.follower.visible
        try:
            if values["Headwater-Position"] is not None:
                wanted = parse_position(values["Headwater-Position"])
                if not wanted.keys() <= visible.positions.keys():
                    raise Problem(400, "This is no position of this workspace: it names what is not there.")
                if not await self.wait(lambda: visible.is_reached(wanted), timeout_s):
                    raise Problem(409, "This process has not read as far as the answer you had.", retry_after="1")
            if values["wait_for"] is not None:
                place = parse_place(values["wait_for"])
                if not await self.wait_for_record(place, timeout_s):
                    raise Problem(409, "That record has had no effect yet.", retry_after="1")
        except InputError as error:
            raise Problem(400, f"{error.what} {error.what_to_do}") from None

    async def missed(
        self, since: Places, until: Places, concerns: Callable[[Change], bool]
    ) -> tuple[list[Change], bool]:
        """The changes between two cursors that are meant, read from the topics, and whether those are all: the first
        thousands of them are given at a time. Raises Problem 410, 503."""
        async with self._catching_up:
            return await self.in_thread(lambda: self._missed(since, until, concerns))

    def _missed(self, since: Places, until: Places, concerns: Callable[[Change], bool]) -> tuple[list[Change], bool]:
        return read_missed(self.settings, since, until, concerns)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run something that waits for Kafka. Errors people can act on become problems."""
        try:
            return await asyncio.to_thread(work)
        except NotInChargeError as error:
            # What was sent is well; it is to be sent elsewhere.
            raise Problem(409, "\n".join(filter(None, (error.what, error.where, error.what_to_do)))) from None
        except HeadwaterError as error:
            is_asked_wrongly = error.exit_code == 2 or isinstance(error, LookupFailed)
            status = 422 if is_asked_wrongly else 503
            raise Problem(status, "\n".join(filter(None, (error.what, error.where, error.what_to_do)))) from None
        except KAFKA_FAILURES as error:
            raise Problem(503, f"The Kafka does not answer: {error}", retry_after="5") from None


class Ends:
    """Where the topics end, asked once for all who wait for it at the same time. Who asks while a question is under way
    needs the answer to the next: theirs may have been committed since. Nothing else keeps its thread."""

    def __init__(self, ask: Callable[[], dict[tuple[str, int], int]]) -> None:
        self._ask = ask
        self._thread = ThreadPoolExecutor(1, "ends")
        self._under_way: asyncio.Task[dict[tuple[str, int], int]] | None = None
        self._next: asyncio.Task[dict[tuple[str, int], int]] | None = None

    async def __call__(self) -> dict[tuple[str, int], int]:
        """Raises BrokerError."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._asked(self._under_way))
        return await asyncio.shield(self._next)

    async def _asked(self, before: "asyncio.Task[dict[tuple[str, int], int]] | None") -> dict[tuple[str, int], int]:
        if before is not None and not before.done():
            await asyncio.wait([before])
        self._under_way, self._next = self._next, None
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._ask)


def _soon(
    loop: asyncio.AbstractEventLoop,
    call: Callable[[Sequence[Record], Mapping[tuple[str, int], int]], None],
    records: Sequence[Record],
    positions: Mapping[tuple[str, int], int],
) -> None:
    try:
        loop.call_soon_threadsafe(call, records, positions)
    except RuntimeError:
        pass  # the loop has ended: nobody listens any more
