"""The connector for collectors of the tracking spec, on a receiver and on our own collector's reading of a batch."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from connectors.testing import ConnectorContract, sample_delivery
from connectors.tracking import TrackingConnector, TrackingOptions, message
from pipeline.records import IdentifierPair
from tests.contracts.webhook_receiver import WebhookReceiver


class TestTracking(ConnectorContract):
    connector = TrackingConnector

    @pytest.fixture(autouse=True)
    def _receiver(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setenv("TESTED_KEY", "a-write-key")
        self.receiver = WebhookReceiver()
        yield
        self.receiver.close()

    def options(self) -> dict[str, Any]:
        return {"url": self.receiver.url, "write_key": {"env": "TESTED_KEY"}, "allow_private": True}

    def received(self) -> list[str]:
        key = base64.b64encode(b"a-write-key:").decode()
        assert all(request.headers["authorization"] == f"Basic {key}" for request in self.receiver.requests)
        return [one["messageId"] for request in self.receiver.requests for one in json.loads(request.body)["batch"]]

    def break_destination(self) -> None:
        self.receiver.answer = lambda request: (503, {}, b"down")

    def mend_destination(self) -> None:
        self.receiver.answer = lambda request: (200, {}, b"")

    def test_who_is_erased_is_deleted_by_a_request_of_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TESTED_DELETES", "Bearer d")
        gone = sample_delivery(3, segment=None, action="profile_erased", body={"profile_ids": ["p1", "p0"]})
        [outcome] = self._deliver([gone])
        assert outcome.status == "rejected" and "delete the person there yourself" in outcome.detail
        assert not self.receiver.requests, "nothing makes them known there again"
        erase = {
            "url": f"{self.receiver.url}/regulations/{{identifiers.user_id}}",
            "method": "POST",
            "headers": {"Authorization": {"env": "TESTED_DELETES"}},
            "body": {"type": "suppress_and_delete", "userId": "{identifiers.user_id}", "ids": "{body.profile_ids}"},
        }
        connector = TrackingConnector("d", TrackingOptions.model_validate({**self.options(), "erase": erase}))
        try:
            outcomes = connector.deliver([sample_delivery(1), gone, sample_delivery(2)])
            nameless = connector.deliver([msgspec.structs.replace(gone, identifiers=[])])
            pairs = [IdentifierPair("user_id", "a1"), IdentifierPair("user_id", "a2")]
            outcomes += connector.deliver([msgspec.structs.replace(gone, identifiers=pairs)])
        finally:
            connector.close()
        assert [one.status for one in (*outcomes, *nameless)] == [*["delivered"] * 4, "rejected"]
        first, deletes, last, *each = self.receiver.requests
        assert [json.loads(one.body)["userId"] for one in each] == ["a1", "a2"]
        assert json.loads(deletes.body) == {"type": "suppress_and_delete", "userId": "ada", "ids": ["p1", "p0"]}
        assert deletes.path.endswith("/regulations/ada") and deletes.headers["authorization"] == "Bearer d"
        assert "batch" in json.loads(first.body) and "batch" in json.loads(last.body), "in their order"

    def test_one_at_fault_stops_no_other(self) -> None:
        self.receiver.answer = lambda request: (400, {}, b"bad") if b"p-bad" in request.body else (200, {}, b"")
        deliveries = [sample_delivery(1, "p-good"), sample_delivery(2, "p-bad"), sample_delivery(3, "p-good")]
        assert [outcome.status for outcome in self._deliver(deliveries)] == ["delivered", "rejected", "delivered"]

    def test_what_a_collector_takes_only_in_part_is_not_all_delivered(self) -> None:
        def takes(request: Any) -> Any:
            batch = json.loads(request.body)["batch"]
            refused = [place for place, one in enumerate(batch) if one["properties"].get("size") == "too large"]
            if len(refused) == len(batch):
                return 400, {}, b'{"success":false,"code":"too_large"}'
            told = {"success": True, "accepted": len(batch) - len(refused), "rejected": len(refused)}
            return 200, {}, msgspec.json.encode(told if refused else {"success": True})

        self.receiver.answer = takes
        deliveries = [
            sample_delivery(number, f"p{number}", action="event", segment=None,
                            body={"type": "track", "event": "Bought", "properties": {"size": size}})
            for number, size in enumerate(("small", "too large", "small"))
        ]  # fmt: skip
        outcomes = self._deliver(deliveries)
        assert [outcome.status for outcome in outcomes] == ["delivered", "rejected", "delivered"]

    def test_a_collector_of_one_event_that_refuses_it_with_200_has_not_taken_it(self) -> None:
        self.receiver.answer = lambda request: (200, {}, b'{"success": true, "accepted": 0, "rejected": 1}')
        [outcome] = self._deliver([sample_delivery(1)])
        assert outcome.status == "rejected"

    def test_batches_stay_within_what_collectors_take(self) -> None:
        large = {"sequence": 1, "traits": {"text": "x" * 100_000}}
        outcomes = self._deliver([sample_delivery(number, body=large) for number in range(12)])
        assert {outcome.status for outcome in outcomes} == {"delivered"}
        assert len(self.receiver.requests) > 1 and all(len(one.body) < 500_000 for one in self.receiver.requests)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (
            {"action": "event", "segment": None, "body": {"type": "track", "event": "Bought", "properties": {"n": 1}}},
            {"type": "track", "event": "Bought", "properties": {"n": 1}, "userId": "ada"},
        ),
        (
            {"action": "event", "segment": None, "body": {"type": "page", "event": "Page Viewed", "properties": {}}},
            {"type": "page", "properties": {}},
        ),
        (
            {
                "action": "event",
                "segment": None,
                "body": {"type": "page", "event": "Page Viewed", "properties": {"name": "Pricing", "category": 3}},
            },
            {"type": "page", "name": "Pricing", "category": None, "properties": {"name": "Pricing", "category": 3}},
        ),
        (
            {
                "action": "event",
                "segment": None,
                "body": {
                    "type": "group",
                    "event": "Group",
                    "group_id": "acme",
                    "properties": {"seats": 9},
                    "traits": {"role": "owner"},
                    "context": {"ip": "::"},
                },
            },
            {
                "type": "group",
                "groupId": "acme",
                "traits": {"seats": 9},
                "context": {
                    "ip": "::",
                    "traits": {"role": "owner"},
                    "headwater": {"destination": "tested", "profile_id": "p1"},
                },
            },
        ),
        (
            {
                "action": "event",
                "segment": None,
                "body": {"type": "alias", "event": "Alias", "properties": {}},
                "identifiers": [IdentifierPair("user_id", "ada"), IdentifierPair("anonymous_id", "a")],
            },
            {"type": "alias", "userId": "ada", "previousId": "a"},
        ),
        (
            {"action": "event", "segment": None, "body": {"type": "alias", "event": "Alias", "properties": {}}},
            {"type": "identify", "userId": "ada", "previousId": None},
        ),
        (
            {
                "action": "alert",
                "segment": "warm",
                "body": {"alert": "warm_account", "alert_id": "a1", "account": "acme"},
            },
            {
                "type": "track",
                "event": "warm_account",
                "properties": {"alert_id": "a1", "account": "acme", "profile_id": "p1", "segment": "warm"},
            },
        ),
        ({}, {"type": "track", "event": "Segment Entered"}),
        ({"action": "segment_exited"}, {"type": "track", "event": "Segment Exited"}),
        (
            {
                "action": "profile_changed",
                "segment": None,
                "body": {"set": {"traits": {"plan": "pro"}}, "unset": {"traits": ["old"]}},
            },
            {"type": "identify", "traits": {"plan": "pro", "old": None}},
        ),
        ({"action": "profile_deleted", "segment": None, "body": {}}, {"type": "track", "event": "Profile Deleted"}),
        ({"identifiers": [IdentifierPair("anonymous_id", "a")]}, {"anonymousId": "a"}),
        ({"identifiers": []}, {"anonymousId": "p1"}),
    ],
)
def test_what_a_delivery_becomes(changed: dict[str, Any], expected: dict[str, Any]) -> None:
    found = message(sample_delivery(1, **changed))
    assert {name: found.get(name) for name in expected} == expected
    assert found["messageId"] == sample_delivery(1).delivery_id


def test_a_key_in_the_definition_and_an_address_in_the_clear_are_refused() -> None:
    for options in (
        {"url": "https://c.example/v1/batch", "write_key": "literal"},
        {"url": "http://c.example/v1/batch", "write_key": {"env": "K"}},
        {"url": "https://c.example/", "write_key": {"env": "K"}, "erase": {"url": "http://c.example/{profile_id}"}},
        {
            "url": "https://c.example/",
            "write_key": {"env": "K"},
            "erase": {"url": "https://c.example/x", "headers": {"Authorization": "Bearer literal"}},
        },
    ):
        with pytest.raises(ValueError, match=r"secret never|in the clear|holds a secret"):
            TrackingOptions.model_validate(options)
