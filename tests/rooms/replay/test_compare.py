"""What is told of two workspaces that differ."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from pipeline.records import IdentifierPair, IdentityPointer, Membership, ProfileDocument, Total
from pipeline.replay.compare import Comparison, compare


def workspace(**people: dict[str, Any]) -> Callable[[str], Iterator[tuple[bytes, bytes]]]:
    """A workspace of profiles: id → names, segments, a total."""

    def table(topic: str) -> Iterator[tuple[bytes, bytes]]:
        for profile_id, person in people.items():
            if topic == "identities":
                for name in person["names"]:
                    yield f"user_id:{name}".encode(), msgspec.json.encode(IdentityPointer(profile_id, 0))
                continue
            document = ProfileDocument(
                profile_id,
                "person",
                [IdentifierPair("user_id", name) for name in person["names"]],
                len(person["names"]),
                totals={"Seen": Total(person.get("seen", 1), 1, 2)},
                segments={one: Membership(1, person.get("sequence", 1), 1) for one in person.get("in", ())},
            )
            yield profile_id.encode(), msgspec.json.encode(document)

    return table


def why(found: Comparison) -> dict[tuple[str, str], int]:
    return {kind: count for kind, count in found.profiles.items() if kind != ("same", "")}


def test_equal_workspaces_are_equal_whatever_their_sequences() -> None:
    one = workspace(p={"names": ["a"], "in": ["s"], "sequence": 3})
    other = workspace(p={"names": ["a"], "in": ["s"], "sequence": 1})
    found = compare(one, other)
    assert found.is_equal and found.members["s"] == {"both": 1}


def test_who_differs_and_why() -> None:
    old = workspace(
        p={"names": ["a"], "in": ["s"]},
        q={"names": ["b"], "in": ["s"]},
        gone={"names": ["c"]},
        was={"names": ["d"], "in": ["s"]},
        more={"names": ["e"], "in": ["t"]},
        late={"names": ["f"], "in": ["t"]},
    )
    new = workspace(
        p={"names": ["a", "b"], "in": ["s"]},
        now={"names": ["d"], "in": ["s"]},
        more={"names": ["e"], "seen": 2, "in": ["u"]},
        late={"names": ["f"]},
    )
    found = compare(old, new)
    assert not found.is_equal
    assert why(found) == {
        ("different", "identifiers"): 1,
        ("only old", "merged"): 1,
        ("only old", "nobody"): 1,
        ("only old", "renamed"): 1,
        ("only new", "renamed"): 1,
        ("different", "facts"): 1,
    }
    assert found.members["s"] == {"both": 1, "only old": 2, "only new": 1}
    assert found.reasons["s", "only old", "merged"] == 1
    assert found.reasons["t", "only old", "facts"] == 1
    assert found.reasons["t", "only old", "rules"] == 1
    assert [one.profile_id for one in found.samples["only old", "merged"]] == ["q"]
