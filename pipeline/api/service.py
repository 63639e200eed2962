"""What the handlers share: the read model, who listens, the rules in force, and the patience to wait for a record."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from pipeline.api.access import Access
from pipeline.api.audit import Audit
from pipeline.api.follower import Follower
from pipeline.api.model import ReadModel
from pipeline.api.positions import Place
from pipeline.api.problems import Problem
from pipeline.api.pulse import Pulse
from pipeline.api.streams import Change, Hub, Places, changes
from pipeline.contracts import ContractsPlan
from pipeline.definitions.log import KafkaPlans
from pipeline.errors import HeadwaterError, InputError
from pipeline.identifiers import Keys
from pipeline.lookup import normalised
from pipeline.runtime.kafka.doors import TopicReader, current_values
from pipeline.runtime.ports import Record
from pipeline.settings import Settings

T = TypeVar("T")

_MAX_WAITING = 1_000
_MAX_MISSED = 200_000
_CATCHING_UP = 4
_DECISIONS_EVERY_S = 2.0


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
        contracts = self.plans.latest().contracts
        if contracts is not self._contracts:
            self._contracts = contracts
            self.access.look_at_contracts(contracts)

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

    def note(self, caller: str, operation: str, subject: str, status: int) -> None:
        """A line in the audit log. Whom it was about is hashed; a segment is nobody."""
        whom = self._keys.actor(subject).decode() if ":" in subject else subject
        self.audit.line(caller, operation, whom, status)
        self.requests[operation, status] += 1

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
        if ":" not in text and text.count("-") == 4:
            return text
        if text.startswith("account:"):
            return self._keys.profile_id(text)
        try:
            return normalised(text, self.plans.latest().identity)
        except InputError as error:
            raise Problem(400, f"{error.what} {error.what_to_do}".strip()) from None

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
            return False
        if (place[0], place[1]) in visible.positions and place[0] != "events":
            return True
        # The change that names the event was read; the tables may still lack the rest of the same transaction.
        ends = await asyncio.to_thread(self.follower.ends)
        return await self.wait(lambda: visible.is_reached(ends), max(0.001, until - time.monotonic()))

    async def missed(self, since: Places, until: Places) -> list[Change]:
        """The changes between two cursors, read from the topics. Raises Problem 410, 503."""
        if sum(max(0, until[place] - at) for place, at in since.items()) > _MAX_MISSED:
            raise Problem(410, "That is too long ago. Read the present state, and begin again without an id.")
        async with self._catching_up:
            return await asyncio.to_thread(self._missed, since, until)

    def _missed(self, since: Places, until: Places) -> list[Change]:
        wanted = {place: at for place, at in until.items() if since[place] < at}
        if not wanted:
            return []
        starts = {place: since[place] for place in wanted}
        with TopicReader(self.settings, sorted({topic for topic, _ in wanted}), only=starts) as reader:
            bounds = reader.bounds()
            if any(at < bounds[place][0] for place, at in starts.items()):
                raise Problem(410, "The topic no longer has what came then. Read the present state, and begin again.")
            found: list[Change] = []
            give_up = time.monotonic() + 20
            while any(reader.positions[place] < at for place, at in wanted.items()):
                if time.monotonic() > give_up:
                    raise Problem(503, "Kafka takes too long to say what was missed.", retry_after="5")
                found += changes(reader.read(10_000, 0.1))
        return [one for one in found if one.offset < wanted[one.topic, one.partition]]

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run something that waits for Kafka. Errors people can act on become problems."""
        try:
            return await asyncio.to_thread(work)
        except HeadwaterError as error:
            status = 422 if error.exit_code == 2 else 503
            raise Problem(status, "\n".join(filter(None, (error.what, error.where, error.what_to_do)))) from None


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
