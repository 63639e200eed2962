"""A delivery that is sent again by hand is not sent against what the person says by now."""

from typing import Any

import msgspec
import pytest

from pipeline import letters
from pipeline.activation import ActivationPlan, Destination
from pipeline.deliver import allowed
from pipeline.deliver.allowed import may_leave
from pipeline.lookup import Value
from pipeline.records import DeadLetter, Delivery, IdentityPointer, ProfileDocument, encode
from pipeline.settings import Settings
from tests.rooms.deliver.destination import record

PLAN = ActivationPlan(
    (
        Destination("mails", "webhook", purposes=("marketing",), channel="email"),
        Destination("open", "webhook", mode="audience"),
    )
)


def document(profile_id: str, **consents: bool) -> bytes:
    given = {name.replace("everything", "*").replace("email", "channel:email"): said for name, said in consents.items()}
    return encode(ProfileDocument(profile_id, "person", [], 1, consents=given))


def delivery(destination: str = "mails", profile: str = "p1", **more: Any) -> bytes:
    _, found = record(0, profile)
    return encode(msgspec.structs.replace(found, destination=destination, **more))


def value_in(stored: dict[tuple[str, bytes], bytes]) -> Value:
    return lambda topic, key: stored.get((topic, key))


@pytest.mark.parametrize(
    ("destination", "said", "leaves"),
    [
        ("mails", {"marketing": True}, True),
        ("mails", {"marketing": False}, False),
        ("mails", {}, False),
        ("mails", {"marketing": True, "email": False}, False),
        ("mails", {"marketing": True, "everything": False}, False),
        ("open", {}, True),
        ("open", {"everything": False}, False),
        ("removed", {"marketing": False}, True),
    ],
)
def test_what_is_sent_again_is_asked_anew(destination: str, said: dict[str, bool], leaves: bool) -> None:
    stored = {("profiles", b"p1"): document("p1", **said)}
    assert may_leave(PLAN, delivery(destination), value_in(stored)) is leaves


def test_whoever_is_gone_allows_nothing_and_what_takes_back_always_goes() -> None:
    stored = {("profiles", b"p2"): document("p2", marketing=True)}
    assert not may_leave(PLAN, delivery(), value_in(stored))
    for action in ("segment_exited", "profile_deleted", "profile_erased"):
        assert may_leave(PLAN, delivery(action=action), value_in(stored))
    stored["identities", b"p1"] = encode(IdentityPointer("p2", 1, retired=True))
    assert may_leave(PLAN, delivery(), value_in(stored)), "p2 is who p1 was"
    for junk in (b"no delivery", b"\xff", b'{"body":' + b'{"a":' * 100_000):
        assert may_leave(PLAN, junk, lambda topic, key: None), "it is refused where it is read"


def test_dead_letters_are_sent_again_to_those_only_who_allow_it(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"yes": True, "no": False}
    stored = {("profiles", who.encode()): document(who, marketing=one) for who, one in said.items()}
    sent: dict[str, Any] = {}

    def written(settings: Settings, topic: str, records: list[Any]) -> int:
        sent[topic] = records
        return len(records)

    monkeypatch.setattr(allowed, "read_catalog", lambda settings: type("Catalog", (), {"latest": None}))
    monkeypatch.setattr(allowed, "activation_plan", lambda catalog, latest: PLAN)
    monkeypatch.setattr(allowed, "current_value", lambda settings, topic, key: stored.get((topic, key)))
    monkeypatch.setattr(letters, "produce_all", written)
    chosen = [
        letters.Letter(0, n, DeadLetter("rejected", "HTTP 400", topic, 0, n, 5, value, key, stage="deliver"))
        for n, (topic, key, value) in enumerate(
            [
                ("deliveries.mails", b"yes", delivery(profile="yes")),
                ("deliveries.mails", b"no", delivery(profile="no")),
                ("raw", None, b"{}"),
            ]
        )
    ]
    assert letters.send_again(Settings(), chosen, 10) == {"deliveries.mails": 1, "raw": 1}
    [(key, body, _)] = sent["deliveries.mails"]
    assert key == b"yes" and msgspec.json.decode(body, type=Delivery).profile_id == "yes"
