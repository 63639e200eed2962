"""Judges a world from its topics and stores alone: what must be there follows from the raw records."""

import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.runtime.ports import Record
from pipeline.settings import Settings
from pipeline.topology import TOPICS
from tests.attack.expected import WEIGHED, Expected, Person, expected_of
from tests.attack.traffic import FRESH_MS, LATER, later_threshold
from tests.kafka.checker import (
    Topics,
    check,
    check_inputs,
    check_pointers,
    check_store,
    check_timers,
    open_transactions,
    read_topics,
    transactional_ids,
)
from tests.kafka.deployment import Deployment

# Those of `headwater apply`, and of the fault that is somebody else's transaction.
FOREIGN = {"apply", "privacy", "foreign"}
STATEFUL = {"unify": "unify-changelog", "identity": "identity-changelog"}


@dataclass
class Verdict:
    """What a judgement was about."""

    raw: int
    events: int
    duplicates: int
    dead_letters: int
    people: int
    merged: int
    segment_changes: int
    profile_changes: int


def shown(profile: Mapping[str, Any]) -> tuple[set[str], dict[str, int], dict[str, float]]:
    """Identifiers, counts and weights of a profile document."""
    identifiers = {f"{pair['namespace']}:{pair['value']}" for pair in profile["identifiers"]}
    counts = {name: total["count"] for name, total in profile.get("totals", {}).items()}
    computed = profile.get("computed", {})
    weights = {name: computed[f"weight_{name.lower()}"] for name in WEIGHED if computed.get(f"weight_{name.lower()}")}
    return identifiers, counts, weights


def check_people(expected: Expected, profiles: Mapping[str, Mapping[str, Any]]) -> None:
    """Each person is one profile that shows every event of theirs once, and there is no other profile."""
    by_name: dict[str, tuple[set[str], dict[str, int], dict[str, float]]] = {}
    for profile_id, profile in profiles.items():
        found = shown(profile)
        assert found[0], f"{profile_id} shows no identifier"
        name = min(found[0])
        assert name not in by_name, f"two profiles hold {name}; one is {profile_id}"
        by_name[name] = found
    wrong = []
    for name, person in expected.people.items():
        right = (person.identifiers, dict(person.counts), dict(person.weights))
        if by_name.get(name) != right:
            wrong.append(f"{name}: {by_name.get(name)} and not {right}")
    assert not wrong, f"{len(wrong)} of {len(expected.people)} people are wrong: " + "; ".join(wrong[:3])
    assert set(by_name) == set(expected.people), f"nobody is {sorted(set(by_name) - set(expected.people))[:3]}"


def is_regular(person: Person) -> bool:
    return person.counts["Bought"] >= 3


def is_browser(person: Person) -> bool:
    return person.counts["Seen"] >= 2 and not person.counts["Bought"]


def check_members(expected: Expected, topics: Topics, later: int = 0) -> None:
    """Members are those whose events say so; nobody is fresh any more. `later`: how many segments came later."""
    names = {profile_id: min(shown(profile)[0]) for profile_id, profile in topics.profiles.items()}
    held: dict[str, set[str]] = {"fresh": set()}
    for row in topics.members.values():
        held.setdefault(row["segment"], set()).add(names[row["profile_id"]])
    rules = {"regulars": is_regular, "browsers": is_browser}
    rules |= {f"{LATER}{n}": _is_heavy(n) for n in range(1, later + 1)}
    for segment, rule in rules.items():
        right = {name for name, person in expected.people.items() if rule(person)}
        found = held.get(segment, set())
        assert found == right, f"{segment}: {sorted(found ^ right)[:5]} are wrong"
    assert not held["fresh"], f"still fresh: {sorted(held['fresh'])[:5]}"
    assert set(held) <= {"fresh", *rules}, f"members of segments that are not there: {sorted(set(held) - set(rules))}"


def _is_heavy(number: int) -> Callable[[Person], bool]:
    return lambda person: person.heaviest_seen > later_threshold(number)


def settled(deployment: Deployment, expected: Expected, later: int = 0) -> str:
    """Empty once the profiles and members are as they must be; else what is still missing."""
    profiles = deployment.table("profiles")
    try:
        check_people(expected, profiles)
        members = deployment.table("segment-members").values()
        assert not [row for row in members if row["segment"] == "fresh"], "somebody is still fresh"
        for n in range(1, later + 1):
            found = sum(row["segment"] == f"{LATER}{n}" for row in members)
            right = sum(map(_is_heavy(n), expected.people.values()))
            assert found == right, f"{LATER}{n} has {found} of {right} members: it is not in force yet, or wrong"
    except AssertionError as difference:
        return str(difference)
    return ""


class Findings:
    """What is wrong, one after the other: what one check finds does not keep the next one from looking."""

    def __init__(self) -> None:
        self.wrong: list[str] = []

    @contextmanager
    def looking(self, where: str) -> Iterator[None]:
        """Note what a check in this block finds, and go on behind it."""
        try:
            yield
        except AssertionError as wrong:
            self.wrong.append(f"{where}: {wrong}")
        except Exception:  # noqa: BLE001 - what is wrong may be beyond what a check can read: that is a finding too
            self.wrong.append(f"{where} could not be checked: {traceback.format_exc()}")

    def tell(self) -> None:
        """AssertionError with all of it, if anything is wrong."""
        if self.wrong:
            count = len(self.wrong)
            raise AssertionError((f"{count} findings\n" if count > 1 else "") + "\n".join(self.wrong))


def judge(
    deployment: Deployment, state_dirs: Mapping[str, list[Path]], slots: set[str], findings: Findings, later: int = 0
) -> Verdict:
    """Check everything of a deployment that has stopped. `state_dirs`: the folders of each stateful role; `slots`: the
    "role-slot" of every worker there was; `later`: how many segments were added under way. What is wrong goes to
    `findings`.
    """
    settings: Settings = deployment.settings
    raw, events, letters = deployment.read("raw"), deployment.read("events"), deployment.read("dead-letters")
    expected = expected_of(raw)
    topics = read_topics(deployment)
    looking = findings.looking
    with looking("inputs"):
        check_inputs(raw, events, letters)
    with looking("dead letters"):
        assert {(d["partition"], d["offset"]) for d in topics.dead_letters} == expected.refused, "the wrong ones"
    with looking("people"):
        check_people(expected, topics.profiles)
    with looking("members"):
        check_members(expected, topics, later)
    with looking("changes and their folds"):
        check(topics)
    with looking("identities"):
        check_pointers(topics)
    with looking("exits by time"):
        check_timers(topics, events, "fresh", FRESH_MS)
    with looking("transactional ids"):
        of_slots = slots | {f"{slot}.1" for slot in slots}
        strangers = {name for name in transactional_ids(settings) if name not in of_slots | FOREIGN}
        assert not strangers, f"those that no slot has, and no start can fence: {sorted(strangers)[:3]}"
    with looking("open transactions"):
        still_open = open_transactions(settings, [topic.name for topic in TOPICS])
        assert not still_open, str(still_open)
    for role, changelog in STATEFUL.items():
        records: list[Record] = deployment.read(changelog)
        for partition in sorted({record.partition for record in records}):
            with looking("stores"):
                folders = [folder for folder in state_dirs[role] if (folder / str(partition)).exists()]
                complete = [check_store(folder, partition, records, complete=len(folders) == 1) for folder in folders]
                assert any(complete), f"none of {role}/{partition} is at the end of the changelog"
    return Verdict(
        len(raw),
        expected.events,
        expected.duplicates,
        len(letters),
        len(expected.people),
        sum(change["change"] == "merged" for change in topics.profile_changes),
        len(topics.segment_changes),
        len(topics.profile_changes),
    )
