"""One destination's loop, turn by turn: what stays of the words of a destination when somebody is erased."""

import time
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from connectors import Outcome, delivered, rejected, retry
from pipeline.deliver.forgotten import ForgottenProfiles
from pipeline.deliver.health import Health
from pipeline.deliver.metrics import DeliverMetrics
from pipeline.deliver.outcomes import Outcomes
from pipeline.deliver.scheduler import Policy
from pipeline.deliver.worker import DestinationWorker, passed_in_a_pause
from pipeline.records import DeadLetter, Delivery, IdentifierPair, encode
from pipeline.runtime.ports import Record
from tests.rooms.deliver.destination import record
from tests.rooms.deliver.test_scheduler import KEYS, answers_for, forgets

WORDS = "HTTP 503: we have trouble with ada"


class Log:
    """A delivery log in memory: what there is to read, and what was put aside."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.waiting = list(records)
        self.letters: list[DeadLetter] = []
        self.progress: list[Any] = []
        self.outcomes: list[Any] = []

    def subscribe(self, listener: Any) -> None:
        listener.assigned({0: (0, "")})

    def read(self, limit: int, timeout_s: float) -> list[Record]:
        found, self.waiting = self.waiting[:limit], self.waiting[limit:]
        return found

    def put_aside(self, letters: Sequence[tuple[int, bytes | None, bytes]]) -> None:
        self.letters += [msgspec.json.decode(value, type=DeadLetter) for _, _, value in letters]

    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def close(self) -> None: ...
    def commit(self, positions: Any, wait: bool = False) -> None: ...

    def tell_progress(self, records: Any) -> None:
        self.progress += records

    def tell_outcomes(self, records: Any) -> None:
        self.outcomes += records


class Connector:
    """Answers as it is told, after `during` has happened."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.during: Any = lambda: None

    def deliver(self, deliveries: Sequence[Delivery]) -> list[Outcome]:
        self.during()
        return [self.outcome] * len(deliveries)

    def close(self) -> None: ...


def named(offset: int, profile: str, action: Any = "segment_entered", cause: Any = "event") -> Record:
    _, delivery = record(offset, profile)
    body: dict[str, Any] = {"traits": {"name": "Ada"}}
    if action == "profile_erased":
        body = {"request_id": "r1", "subject": "0123", "last": True}
    pairs = [IdentifierPair("user_id", "ada"), IdentifierPair("user_id", "bob")]
    delivery = msgspec.structs.replace(delivery, action=action, identifiers=pairs, body=body, cause=cause)
    return Record("deliveries.d", 0, offset, profile.encode(), encode(delivery))


def worker(
    log: Log, connector: Any, forgotten: ForgottenProfiles, outcomes: Outcomes | None = None
) -> tuple[DestinationWorker, list[Health]]:
    said: list[Health] = []
    policy = Policy(concurrency=1, attempts=1_000, first_retry_ms=1, longest_retry_ms=1)
    metrics = DeliverMetrics(CollectorRegistry()).of("d")
    made = DestinationWorker(
        "d", connector, log, policy, metrics, outcomes=outcomes, tell_health=said.append, forgotten=forgotten
    )
    log.subscribe(made)
    return made, said


def turns(made: DestinationWorker, until: Any) -> None:
    give_up = time.monotonic() + 60
    while not until():
        assert time.monotonic() < give_up
        made.turn()


def test_what_a_destination_says_is_brief_once_somebody_is_erased(caplog: pytest.LogCaptureFixture) -> None:
    forgotten = ForgottenProfiles(KEYS)
    made, said = worker(Log([named(0, "p1")]), Connector(retry(WORDS)), forgotten)
    turns(made, lambda: said)
    assert (said[-1].up, said[-1].failure) == (False, WORDS)
    assert "HTTP 503" in caplog.text and "ada" not in caplog.text, "a log is nobody's to erase"
    forgotten.take([forgets("p1")])
    turns(made, lambda: len(said) > 1)
    assert (said[-1].up, said[-1].failure) == (False, "HTTP 503")


@pytest.mark.parametrize("value", [b"junk", b"[]", b"\xff", b"[" * 100_000, b'{"body":' + b'{"a":' * 100_000])
def test_what_is_no_delivery_is_put_aside_and_what_follows_it_goes(value: bytes) -> None:
    log = Log([Record("deliveries.d", 0, 0, b"p1", value), named(1, "p1")])
    connector, told = Connector(delivered()), list[str]()
    connector.during = lambda: told.append("p1")
    made, _ = worker(log, connector, ForgottenProfiles(KEYS))
    turns(made, lambda: told and log.letters)
    assert [letter.reason for letter in log.letters] == ["not a delivery"]


def test_what_is_told_of_a_destination_is_how_it_fails_now(caplog: pytest.LogCaptureFixture) -> None:
    """It was down, then a replica, then had another password: whoever looks wants the last of these."""
    connector = Connector(retry("Redis ConnectionError"))
    made, said = worker(Log([named(0, "p1")]), connector, ForgottenProfiles(KEYS))
    for failure in ("Redis ConnectionError", "Redis ReadOnlyError: not here", "Redis ReadOnlyError: nor there"):
        connector.outcome = retry(failure)
        turns(made, lambda failure=failure: said and said[-1].failure == failure)
    connector.outcome = delivered()
    turns(made, lambda: said[-1].up)
    assert caplog.text.count("Redis ConnectionError") == caplog.text.count("Redis ReadOnlyError") == 1


@pytest.mark.parametrize("action", ["segment_entered", "segment_exited", "profile_erased"])
def test_a_dead_letter_of_what_was_with_the_connector_says_nothing_of_the_erased(action: str) -> None:
    forgotten, connector = ForgottenProfiles(KEYS), Connector(rejected("HTTP 410: ada is gone"))
    connector.during = lambda: forgotten.take([forgets("p1")])
    log = Log([named(0, "p1", action)])
    made, _ = worker(log, connector, forgotten)
    turns(made, lambda: log.letters)
    [letter] = log.letters
    assert letter.detail.startswith("HTTP 410 ") or letter.detail == "HTTP 410"
    kept = msgspec.json.decode(letter.value or b"", type=Delivery)
    assert kept.identifiers == [] and "Ada" not in str(kept.body) and kept.action == action
    assert kept.body.get("request_id") == ("r1" if action == "profile_erased" else None)


def test_a_dead_letter_of_somebody_else_keeps_all_but_the_erased() -> None:
    forgotten, connector = ForgottenProfiles(KEYS), Connector(rejected("HTTP 410: no"))
    connector.during = lambda: forgotten.take([forgets("p1", at=10), answers_for("user_id:ada")])
    log = Log([named(0, "p2"), named(11, "p3")])
    made, _ = worker(log, connector, forgotten)
    turns(made, lambda: len(log.letters) == 2)
    before, after = (msgspec.json.decode(one.value or b"", type=Delivery) for one in log.letters)
    assert [pair.value for pair in before.identifiers] == ["bob"], "decided before the erasure"
    assert [pair.value for pair in after.identifiers] == ["ada", "bob"], "whoever has it by then"
    assert all(one.detail.startswith("HTTP 410: no") for one in log.letters)


def test_what_goes_out_is_not_held_up_by_an_erasure_of_somebody_else() -> None:
    forgotten = ForgottenProfiles(KEYS)
    forgotten.take([forgets("p1", "user_id:eve")])
    made, _ = worker(Log([named(offset, "p2") for offset in range(5)]), Connector(delivered()), forgotten)
    turns(made, lambda: made.scheduler.delivered == 5)
    assert (made.scheduler.overtaken, made.scheduler.open) == (0, 0)


def test_what_waits_for_an_erasure_goes_out_when_the_destination_has_answered() -> None:
    forgotten = ForgottenProfiles(KEYS)
    forgotten.take([forgets("p1", at=10)])
    made, _ = worker(Log([named(11, "p3"), named(12, "p1", "profile_erased")]), Connector(delivered()), forgotten)
    turns(made, lambda: made.scheduler.delivered == 1)
    for _ in range(20):
        made.turn()
    assert (made.scheduler.delivered, made.scheduler.open) == (1, 1)
    forgotten.take([answers_for("user_id:ada")])
    turns(made, lambda: made.scheduler.delivered == 2)


def in_a_pause(delivery: Delivery) -> bool:
    return passed_in_a_pause(delivery, [(0, 10)], max_age_ms=1)


@pytest.mark.parametrize(
    ("action", "cause", "goes"),
    [
        ("segment_entered", "event", False),
        ("segment_exited", "timer", False),
        ("segment_exited", "consent", True),
        ("profile_deleted", "consent", True),
        ("profile_deleted", "erase", True),
        ("profile_erased", "erase", True),
    ],
)
def test_what_was_taken_back_in_a_pause_is_told_after_it(action: str, cause: str, goes: bool) -> None:
    """The destination was told of them before; and a receipt waits for the answer."""
    log = Log([named(0, "p1", action, cause)])
    made, _ = worker(log, Connector(delivered()), ForgottenProfiles(KEYS))
    made.has_passed = in_a_pause
    turns(made, lambda: made.scheduler.delivered or log.letters)
    assert made.scheduler.delivered == goes and len(log.letters) == (not goes)
    assert len(log.progress) == (action == "profile_erased")


def test_a_dead_letter_of_what_passed_in_a_pause_says_nothing_of_the_erased() -> None:
    forgotten = ForgottenProfiles(KEYS)
    forgotten.take([forgets("p1")])
    log = Log([named(0, "p1"), named(1, "p2"), named(2, "p3")])
    made, _ = worker(log, Connector(delivered()), forgotten)
    made.has_passed = in_a_pause
    turns(made, lambda: len(log.letters) == 3)
    erased, *others = (msgspec.json.decode(one.value or b"", type=Delivery) for one in log.letters)
    assert erased.identifiers == [] and erased.body == {}
    assert [[pair.value for pair in other.identifiers] for other in others] == [["bob"], ["bob"]]


@pytest.mark.parametrize("outcome", [delivered(), rejected("no")])
def test_no_outcome_is_told_of_whoever_was_erased(outcome: Outcome) -> None:
    """It would stand in the sources after the date that is on the receipt."""
    forgotten = ForgottenProfiles(KEYS)
    forgotten.take([forgets("p1"), answers_for("user_id:ada")])
    log = Log([named(0, "p1", "segment_exited"), named(6, "p2", "segment_exited")])
    made, _ = worker(log, Connector(outcome), forgotten, Outcomes("d"))
    turns(made, lambda: made.scheduler.delivered + made.scheduler.given_up == 2)
    [(_, value)] = log.outcomes
    assert b'"delivery_id":"0/6"' in value


NO_OUTCOMES: list[Any] = [
    None,
    {"status": "delivered"},
    "delivered",
    Outcome("done"),  # type: ignore[arg-type]
    Outcome("rejected", None),  # type: ignore[arg-type]
    Outcome("retry", "later", "5"),  # type: ignore[arg-type]
    Outcome("retry", "later", float("nan")),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("made_up", NO_OUTCOMES, ids=str)
def test_a_connector_that_makes_up_outcomes_ends_nobody(made_up: Any) -> None:
    """The role serves all destinations in one process: what ends one worker ends them all."""
    log, connector = Log([named(0, "p1")]), Connector(made_up)
    made, _ = worker(log, connector, ForgottenProfiles(KEYS))
    turns(made, lambda: made.scheduler.repeated)
    assert made.scheduler.open == 1, "nobody knows what became of it"
    connector.outcome = delivered()
    turns(made, lambda: made.scheduler.delivered)


def test_nobody_is_left_alone_for_longer_than_a_day() -> None:
    log, connector = Log([named(0, "p1")]), Connector(Outcome("retry", "later", 10**18))
    made, _ = worker(log, connector, ForgottenProfiles(KEYS))
    turns(made, lambda: made.scheduler.repeated)
    wakes = made.scheduler.wakes_at(0)
    assert wakes is not None and wakes <= time.time() * 1000 + 86_400_000


def test_whoever_looks_sees_that_a_destination_asked_to_be_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing fails meanwhile: it stood there as well, while everything waited for as long as a day."""
    connector = Connector(retry("HTTP 429: slow down", 3_600_000))
    made, said = worker(Log([named(0, "p1")]), connector, ForgottenProfiles(KEYS))
    turns(made, lambda: said)
    assert not said[-1].up and said[-1].failure.endswith("Z: HTTP 429: slow down")
    assert said[-1].failure.startswith("it asks to be left alone until 20")
    assert caplog.text.count("it asks to be left alone until") == 1
    for _ in range(5):
        made.turn()
    assert len(said) == 1
    connector.outcome = delivered()
    made.scheduler.circuit.held_until = 0
    turns(made, lambda: said[-1].up)
    short, told = worker(Log([named(0, "p1")]), Connector(retry("HTTP 429", 30_000)), ForgottenProfiles(KEYS))
    for _ in range(20):
        short.turn()
    assert told == []
