"""The suite every connector passes. In your own tests, with pytest:

class TestMine(ConnectorContract):
    def options(self): return {"url": ...}          # as in a definition
    def received(self): return [...]                # the delivery_ids at the destination, in order of arrival
    def break_destination(self): ...                # from now on the destination cannot be reached, or refuses all
    def mend_destination(self): ...                 # and now it can be again
    def members(self): return {...}                 # who is in the segment `trial` there, if it holds that
    connector = MyConnector
"""

from collections.abc import Sequence
from typing import Any, ClassVar, cast

from pydantic import ValidationError

from connectors.base import Connector, Outcome
from pipeline.records import Delivery, IdentifierPair

ERASED = {"request_id": "r1", "subject": "5d7d", "profile_ids": ["p1", "p2"], "last": True}
NOW_MS = 1_800_000_000_000


def sample_delivery(number: int, profile: str = "p1", **changed: Any) -> Delivery:
    """A delivery as the pipeline makes them."""
    fields: dict[str, Any] = {
        "delivery_id": f"dlv_{number:032x}",
        "destination": "tested",
        "profile_id": profile,
        "action": "segment_entered",
        "at": NOW_MS + number,
        "decided_at": NOW_MS + number,
        "identifiers": [IdentifierPair("user_id", "ada"), IdentifierPair("email", "ada@example.com")],
        "segment": "trial",
        "body": {"entity": "person", "version": 1, "sequence": number},
    }
    return Delivery(**{**fields, **changed})


class ConnectorContract:
    """Subclass it under a name that begins with Test."""

    connector: ClassVar[type[Connector]]
    # True for a destination that holds a state, not a history: `received` then ends with the last delivery.
    mirrors: ClassVar[bool] = False

    def options(self) -> dict[str, Any]:
        """Options that work, as they would stand in a definition."""
        raise NotImplementedError

    def received(self) -> list[str]:
        """The delivery_ids at the destination, in the order of arrival."""
        raise NotImplementedError

    def members(self) -> set[str] | None:
        """The profile_ids that are in the segment `trial` at the destination. None: it is not asked, as with one that
        keeps a history only."""
        return None

    def break_destination(self) -> None:
        """Make the destination fail for a while."""
        raise NotImplementedError

    def mend_destination(self) -> None:
        """End the failure."""
        raise NotImplementedError

    def open(self) -> Connector:
        """A connector, opened as the deliver role does."""
        return self.connector("tested", self.connector.options_model.model_validate(self.options()))

    def _deliver(self, deliveries: Sequence[Delivery]) -> list[Outcome]:
        connector = self.open()
        try:
            outcomes: list[Outcome] = []
            for start in range(0, len(deliveries), connector.max_batch):
                outcomes += connector.deliver(deliveries[start : start + connector.max_batch])
            return outcomes
        finally:
            connector.close()

    def test_the_class_describes_itself(self) -> None:
        kind = self.connector
        assert isinstance(kind.kind, str) and kind.kind
        assert kind.mode in ("audience", "trigger")
        assert kind.max_batch >= 1 and kind.concurrency >= 1

    def test_what_is_delivered_arrives_in_order(self) -> None:
        deliveries = [sample_delivery(number) for number in range(1, 8)]
        outcomes = self._deliver(deliveries)
        assert [outcome.status for outcome in outcomes] == ["delivered"] * 7
        arrived = [delivery.delivery_id for delivery in deliveries]
        assert self.received()[-1:] == arrived[-1:] if self.mirrors else self.received() == arrived

    def test_every_action_is_taken(self) -> None:
        actions = ["segment_entered", "segment_exited", "profile_changed", "profile_deleted", "event", "alert"]
        deliveries = [sample_delivery(n, action=cast(Any, action)) for n, action in enumerate(actions)]
        assert {outcome.status for outcome in self._deliver(deliveries)} == {"delivered"}

    def test_an_erasure_is_carried_out_or_refused_with_a_reason(self) -> None:
        erased = sample_delivery(3, segment=None, action="profile_erased", body=ERASED)
        before = [sample_delivery(1), sample_delivery(2, "p2")]
        outcomes = self._deliver([*before, erased])
        assert [outcome.status for outcome in outcomes[:2]] == ["delivered"] * 2
        assert outcomes[2].status == "delivered" or (outcomes[2].status == "rejected" and outcomes[2].detail)
        again = self._deliver([erased])
        assert again[0].status == outcomes[2].status, "a repetition, after a crash, says the same"

    def test_a_repetition_can_be_told_from_news(self) -> None:
        delivery = sample_delivery(1)
        assert [o.status for o in self._deliver([delivery])] == ["delivered"]
        assert [o.status for o in self._deliver([delivery])] == ["delivered"]
        assert set(self.received()) == {delivery.delivery_id}

    def test_unusual_content_arrives(self) -> None:
        body: dict[str, Any] = {
            "traits": {"name": "Zoë 🦊\n\u2028\x00", "empty": None, "deep": [[{"a": []}]], "long": "x" * 100_000}
        }
        assert [o.status for o in self._deliver([sample_delivery(1, body=body)])] == ["delivered"]

    def test_no_identifiers_and_no_segment(self) -> None:
        delivery = sample_delivery(1, identifiers=[], segment=None, action="profile_deleted", body={})
        assert [o.status for o in self._deliver([delivery])] == ["delivered"]

    def test_whoever_left_or_was_erased_is_no_member(self) -> None:
        self._deliver([sample_delivery(1, "p1"), sample_delivery(2, "p2"), sample_delivery(3, "p3")])
        if self.members() is None:
            return
        assert self.members() == {"p1", "p2", "p3"}
        self._deliver([sample_delivery(4, "p3", action="segment_exited")])
        assert self.members() == {"p1", "p2"}, "p3 has left"
        [outcome] = self._deliver([sample_delivery(5, segment=None, action="profile_erased", body=ERASED)])
        if outcome.status == "delivered":
            assert self.members() == set(), "p1 and p2 were erased, and it was said to be done"

    def test_a_failing_destination_means_retry_and_then_works_again(self) -> None:
        delivery = sample_delivery(1)
        connector = self.open()
        try:
            self.break_destination()
            try:
                outcomes = connector.deliver([delivery])
            finally:
                self.mend_destination()
            assert [outcome.status for outcome in outcomes] == ["retry"]
            assert outcomes[0].detail, "say what happened: somebody will have to mend it"
            assert [outcome.status for outcome in connector.deliver([delivery])] == ["delivered"]
        finally:
            connector.close()

    def test_unknown_options_are_refused(self) -> None:
        try:
            self.connector.options_model.model_validate({**self.options(), "no_such_option": 1})
        except ValidationError:
            return
        raise AssertionError("an option that does not exist was accepted")
