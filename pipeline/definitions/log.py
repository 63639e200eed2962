"""The definitions of a workspace on its log: applying new ones, and following what is in force."""

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from pydantic import ValidationError

from pipeline.admin import create_topics
from pipeline.definitions.apply import ApplyPlan, plan_apply
from pipeline.definitions.catalog import (
    Catalog,
    generation_plan,
    records,
)
from pipeline.definitions.loader import Written, told
from pipeline.errors import DefinitionError, DefinitionsNotThere
from pipeline.in_charge import refuse_definitions
from pipeline.plans import GenerationPlan
from pipeline.records import Generation, Marker, Ready, RulesChanged, encode, read_events_record
from pipeline.runtime.kafka.apply_log import ApplyTransaction
from pipeline.runtime.kafka.doors import TopicReader
from pipeline.segments import RuleError
from pipeline.settings import Settings

TOPIC = "definitions"
_LATEST_EVERY_S = 0.5
_PAUSE_S = 0.05
_FETCH_WAIT_MS = 200


def read_catalog(settings: Settings) -> Catalog:
    """Everything that was ever applied, up to now."""
    catalog = Catalog()
    with TopicReader(settings, [TOPIC]) as reader:
        _read_on(reader, catalog)
    return catalog


def _read_on(reader: TopicReader, catalog: Catalog) -> None:
    for record in reader.read_to_end():
        if record.key is not None:
            catalog.add(record.key, record.value)


def apply(
    settings: Settings,
    written: Sequence[Written] = (),
    *,
    owner: str = "file",
    take_over: bool = False,
    prune: bool = False,
    remove: Sequence[str] = (),
    pause: Sequence[str] = (),
    resume: Sequence[str] = (),
    over: int | None = None,
    applied_by: str = "",
    dry_run: bool = False,
) -> ApplyPlan:
    """Put definitions into force, or tell what that would change (`dry_run`).

    New versions and the next generation go to `definitions`, a marker to every partition of `events`, and, where
    identity rules changed, a record to `identity-edges`: in one transaction, so that nobody ever meets half of it.
    A destination's delivery topic is made before. `remove`, `pause` and `resume` name "kind/name". `over`: only if that
    version of what is written is in force (0: none).

    Raises:
        DefinitionError: the definitions do not fit together, or one of them belongs to another owner.
        OvertakenError: another version than `over` is in force.
        BrokerError, TopicsError: nothing was changed, or the error says otherwise.
        NotInChargeError: the workspace is a copy that has not come to the present.
    """

    def plan(catalog: Catalog, now_ms: int) -> ApplyPlan:
        with _placing(written):
            return plan_apply(
                catalog,
                written,
                leaves_of=checked_leaves,
                owner=owner,
                take_over=take_over,
                prune=prune,
                remove=remove,
                pause=pause,
                resume=resume,
                over=over,
                applied_at=now_ms,
                applied_by=applied_by,
            )

    if dry_run:
        return plan(read_catalog(settings), _now_ms())
    refuse_definitions(settings)
    transaction = ApplyTransaction(settings)
    try:
        # Only now, when no other apply can write any more, is what is read the last word.
        catalog = read_catalog(settings)
        now_ms = _now_ms()
        planned = plan(catalog, now_ms)
        if planned.is_empty:
            return planned
        to_write: list[tuple[str, int, bytes | None, bytes]]
        to_write = [(TOPIC, 0, key, value) for key, value in records(planned.definitions, planned.generation)]
        if planned.generation is not None:
            number = planned.generation.number
            members = planned.generation.members
            create_topics(settings, [key.partition("/")[2] for key in members if key.startswith("destination/")])
            marker = encode(Marker(generation=number, received=now_ms))
            to_write += [("events", partition, None, marker) for partition in range(transaction.partitions("events"))]
            if planned.identity_changed:
                to_write.append(("identity-edges", 0, None, encode(RulesChanged(generation=number, received=now_ms))))
        transaction.write(to_write)
        return planned
    finally:
        transaction.close()


def check(written: Sequence[Written]) -> ApplyPlan:
    """What an apply of these would do where nothing is in force: whether they fit together, without a Kafka.

    Raises:
        DefinitionError: they do not.
    """
    with _placing(written):
        return plan_apply(Catalog(), written, leaves_of=checked_leaves, applied_at=_now_ms())


@contextmanager
def _placing(written: Sequence[Written]) -> Iterator[None]:
    """Give errors their file and line, if the rule that one is about is among what is being applied."""
    try:
        yield
    except DefinitionError as error:
        cause = error.__cause__
        if not isinstance(cause, RuleError):
            raise
        if not cause.others:
            raise DefinitionError(error.what, _place_in(written, cause) or error.where, error.what_to_do) from error
        places = [_place_in(written, one) or f"segment {one.name}" for one in cause.all]
        lines = list(dict.fromkeys(f"{place}: {one.problem}" for place, one in zip(places, cause.all, strict=True)))
        what = f"{len(lines)} things that rules ask for are not there."
        raise DefinitionError(what, "\n    ".join(("", *told(lines))), error.what_to_do) from error


def _place_in(written: Sequence[Written], error: RuleError) -> str:
    """FILE:LINE of what an error is about; empty if it is not among what is being applied."""
    asked = {error.name: error.missing, **dict(zip(error.circle, error.circle[1:] + error.circle[:1], strict=True))}
    segments = {one.name: one for one in written if one.kind == "segment" and one.file}
    return next((segments[name].place_of(asks) for name, asks in asked.items() if name in segments), "")


def checked_leaves(catalog: Catalog, generation: Generation) -> Iterable[str]:
    """The leaves of a generation, once it is certain that every stage can compile it: before anything is written it is
    compiled as they will do it, for none of them goes on past the marker of one that cannot be.

    Raises:
        DefinitionError: the documents do not fit together.
    """
    return generation_plan(catalog, generation).segments.births


class Readiness:
    """Tells when a generation is in force. Open it before the apply: it hears what comes after."""

    def __init__(self, settings: Settings) -> None:
        self._reader = TopicReader(settings, ["events"], from_end=True)
        self._partitions = len(self._reader.partitions)

    def wait(self, generation: int, timeout_s: float) -> bool:
        """Wait until every partition evaluates under the generation; whether it came to that in time."""
        ready: set[int] = set()
        give_up = time.monotonic() + timeout_s
        while len(ready) < self._partitions and time.monotonic() < give_up:
            for record in self._reader.read(1_000, 0.1):
                # Most of what comes are events; only what may be the record is decoded.
                if record.value is not None and b'"ready"' in record.value:
                    message = read_events_record(record.value)
                    if isinstance(message, Ready) and message.generation >= generation:
                        ready.add(record.partition)
        return len(ready) >= self._partitions

    def close(self) -> None:
        """Let go of the connection."""
        self._reader.close()


class KafkaPlans:
    """The plan of each generation, for a worker. Safe to call from several threads.

    A generation that is not known yet is waited for: its marker may be seen a moment before its definitions are.
    """

    def __init__(self, settings: Settings, timeout_s: float = 60.0) -> None:
        self._settings = settings
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._catalog = Catalog()
        self._reader: TopicReader | None = None
        self._plans: dict[int, GenerationPlan] = {}
        self._looked_at = 0.0
        self._newest: GenerationPlan | None = None

    def __call__(self, generation: int) -> GenerationPlan:
        """The plan of a generation.

        Raises DefinitionsNotThere when its definitions do not come in time, or this version cannot compile them.
        """
        plan = self._plans.get(generation)
        if plan is not None:
            return plan
        with self._lock:
            give_up = time.monotonic() + self._timeout_s
            while self._catalog.generation(generation) is None:
                self._look(_PAUSE_S)
                if time.monotonic() > give_up and self._catalog.generation(generation) is None:
                    raise DefinitionsNotThere(
                        f"Generation {generation} of the definitions is not there, though a record asks for it.",
                        self._settings.topic(TOPIC),
                        "the topic was made anew or truncated: restore it, or begin a new workspace",
                    )
            if self._reader is not None and self._newest is None:
                # Who asks for generations only comes again when there is another one.
                self._reader.rest()
            return self._compiled(generation)

    def latest(self) -> GenerationPlan:
        """The plan of the newest generation, as of half a second ago at most. Cheap to ask again and again."""
        newest = self._newest
        if newest is None or time.monotonic() - self._looked_at > _LATEST_EVERY_S:
            with self._lock:
                self._look()
                newest = self._newest = self._compiled(self._catalog.latest.number)
        return newest

    def _look(self, wait_s: float = 0) -> None:
        """Read everything there is the first time; from then on take what has come, or comes within `wait_s`. Raises
        DefinitionsNotThere."""
        try:
            self._read(wait_s)
        except DefinitionsNotThere:
            # From the beginning the next time: what stands behind it would be missed.
            self._forget()
            self._catalog = Catalog()
            raise

    def _read(self, wait_s: float) -> None:
        if self._reader is None:
            # It stays open for good and is mostly idle: it shall not ask the broker fifty times a second.
            self._reader = TopicReader(self._settings, [TOPIC], fetch_wait_ms=_FETCH_WAIT_MS)
            _read_on(self._reader, self._catalog)
        else:
            for record in self._reader.read(10_000, wait_s):
                if record.key is not None:
                    self._catalog.add(record.key, record.value)
        self._looked_at = time.monotonic()

    def _compiled(self, number: int) -> GenerationPlan:
        plan = self._plans.get(number)
        if plan is None:
            generation = self._catalog.generation(number)
            assert generation is not None
            try:
                plan = self._plans[number] = generation_plan(self._catalog, generation)
            except (DefinitionError, RuleError, ValidationError) as error:
                # It was valid where it was applied. It is no fault of the records that are read with it.
                raise DefinitionsNotThere(
                    f"Generation {number} of the definitions cannot be read here: {error}.",
                    self._settings.topic(TOPIC),
                    "start this role in the version that applied it, or apply what this version knows",
                ) from error
        return plan

    def look(self) -> Catalog:
        """What has been applied so far, for who needs no plan. What is given goes on growing with later calls."""
        with self._lock:
            self._look()
            return self._catalog

    def follow_to(self, generation: int, timeout_s: float) -> bool:
        """Wait until `look` knows a generation that was applied; whether it came to that in time."""
        give_up = time.monotonic() + timeout_s
        with self._lock:
            while self._catalog.generation(generation) is None and time.monotonic() < give_up:
                self._look(_PAUSE_S)
            return self._catalog.generation(generation) is not None

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            self._forget()

    def _forget(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
