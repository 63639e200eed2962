"""What came out of a world, beside the reference: tables, logs, who is who, what became of each record."""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.runtime.ports import Record
from tests.blackbox.history import Change, histories
from tests.blackbox.language import Rules, compute
from tests.blackbox.people import Identifier, Known, Sent, world_of
from tests.blackbox.people import World as Truth
from tests.blackbox.values import Facts
from tests.blackbox.world import World, now_ms

# What stands in the tables may be behind the wall clock by so much, ticks and all.
BEHIND_MS = 3_000
# A profile shows so many of its identifiers.
SHOWN = 100


@dataclass(slots=True)
class Output:
    """Everything that can be read, between two instants."""

    after: int
    before: int
    profiles: dict[str, Any]
    identities: dict[str, Any]
    members: dict[str, Any]
    segment_changes: list[Any]
    profile_changes: list[Any]
    dead: list[Any]


@dataclass(slots=True)
class Verdict:
    """Findings, and how much was looked at."""

    findings: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def find(self, text: str) -> None:
        self.findings.append(text)


def read(world: World) -> Output:
    """The tables and the logs."""
    deployment = world.deployment
    after = now_ms()
    return Output(
        profiles=deployment.table("profiles"),
        identities=deployment.table("identities"),
        members=deployment.table("segment-members"),
        segment_changes=in_order(
            record
            for record in deployment.read("segment-changes")
            if not world.starts or record.offset >= world.starts[record.partition]
        ),
        profile_changes=in_order(deployment.read("profile-changes")),
        dead=world.dead + deployment.values("dead-letters"),
        after=after,
        before=now_ms(),
    )


def in_order(records: Iterable[Record]) -> list[Any]:
    return [json.loads(record.value) for record in records if record.value is not None]


def settled(world: World) -> Output:
    """The tables, read twice alike: nothing moved in between."""
    while True:
        first = read(world)
        time.sleep(0.5)
        again = read(world)
        if len(first.segment_changes) == len(again.segment_changes) and first.profiles == again.profiles:
            return first


def judge(world: World, doors: Callable[..., None] | None = None) -> Verdict:
    """Everything that DESIGN promises of what came out; `doors` asks the other doors too."""
    verdict = Verdict()
    output = settled(world)
    world.learnt()
    if world.door is not None:
        verdict.findings += world.door.findings
        verdict.counts["requests"] += len(world.door.awaited)
        verdict.counts["requests that came again"] += world.door.requests_again
    _refused(verdict, world, output)
    known = world.known()
    ids = {key: row["profile_id"] for key, row in output.identities.items() if not row.get("retired")}
    truth = world_of(known, ids)
    rules = world.rules()
    _who_is_who(verdict, known, truth, ids, output)
    _profiles(verdict, truth, ids, output)
    _computed(verdict, rules, truth, ids, output)
    _members(verdict, rules, truth, ids, output)
    _logs(verdict, world, output)
    _alone(verdict, world, rules, known, truth, ids, output)
    if doors is not None:
        doors(world, truth, known, ids, verdict)
    return verdict


# --------------------------------------------------------------------------------------------------------------- people


def _who_is_who(verdict: Verdict, known: Known, truth: Truth, ids: Mapping[Identifier, str], output: Output) -> None:
    taken: dict[str, Any] = {}
    for group in truth.people:
        verdict.counts["groups"] += 1
        leads = {ids.get(each) for each in group}
        if leads == {None} and len(group) == 1 and not truth.events[group]:
            continue  # it stood only beside stronger ones; a copy hears of a link and that it was taken back at once
        if len(leads) != 1 or None in leads:
            verdict.find(f"{sorted(group)} are one, but lead to {[(each, ids.get(each)) for each in sorted(group)]}")
            continue
        profile_id = str(leads.pop())
        if profile_id in taken:
            verdict.find(f"{sorted(group)} and {sorted(taken[profile_id])} are two, but both are {profile_id}")
        taken[profile_id] = group
    for identifier in known.erased:
        if identifier not in {each for group in truth.people for each in group} and identifier in ids:
            verdict.find(f"{identifier} was erased, and is still in identities: {ids[identifier]}")
    for key, row in output.identities.items():
        if row.get("retired") and row["profile_id"] not in output.identities and key in output.profiles:
            verdict.find(f"{key} is retired, and still has a profile")


def _profiles(verdict: Verdict, truth: Truth, ids: Mapping[Identifier, str], output: Output) -> None:
    expected_ids = set()
    for group, facts in truth.people.items():
        profile_id = ids.get(min(group), "")
        expected_ids.add(profile_id)
        profile = output.profiles.get(profile_id)
        events = truth.events[group]
        if profile is None and not events:
            continue  # it stood only beside stronger ones, and is linked to none of them
        if profile is None:
            verdict.find(f"{sorted(group)} have no profile {profile_id}; {len(events)} events")
            continue
        verdict.counts["profiles"] += 1
        expected = {
            "entity": "person",
            "identifiers": sorted(group),
            "identifiers_total": len(group),
            "traits": facts.traits,
            "consents": facts.consents,
            "totals": totals(events),
            "accounts": sorted(account.profile_id.partition(":")[2] for account in facts.accounts),
        }
        if events:
            expected["first_seen"] = min(event.time for event in events)
            expected["last_seen"] = max(event.time for event in events)
        seen = dict(profile)
        seen["identifiers"] = sorted(f"{each['namespace']}:{each['value']}" for each in profile["identifiers"])
        if len(group) > SHOWN and len(seen["identifiers"]) == SHOWN and group.issuperset(seen["identifiers"]):
            seen["identifiers"] = expected["identifiers"]
        seen["traits"] = {name: value for name, value in profile.get("traits", {}).items() if value is not None}
        seen["accounts"] = sorted(profile.get("accounts", []))
        for name, value in expected.items():
            got = seen.get(name, {} if isinstance(value, dict) else None)
            if not alike(got, value):
                verdict.find(f"{name} of {sorted(group)}: {got!r}, and not {value!r}")
    strange = {key for key, row in output.profiles.items() if row["entity"] == "person"} - expected_ids
    for profile_id in strange:
        named = [f"{each['namespace']}:{each['value']}" for each in output.profiles[profile_id]["identifiers"]]
        if not any(each.startswith("user_id:strange-") for each in named):
            verdict.find(f"a profile nobody knows: {named}")
    for name, account in truth.accounts.items():
        profile = output.profiles.get(ids.get("account:" + name, ""))
        if profile is None:
            verdict.find(f"the account {name} has no profile")
        elif not alike({k: v for k, v in profile.get("traits", {}).items() if v is not None}, account.traits):
            verdict.find(f"traits of the account {name}: {profile.get('traits')}, and not {account.traits}")


def totals(events: list[Sent]) -> dict[str, Any]:
    found: dict[str, list[int]] = defaultdict(list)
    for event in events:
        found[event.name].append(event.time)
    return {name: {"count": len(times), "first": min(times), "last": max(times)} for name, times in found.items()}


def alike(left: Any, right: Any) -> bool:
    """Equal as JSON: 3 is 3.0, true is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(alike(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(alike, left, right))
    return bool(left == right)


def _computed(verdict: Verdict, rules: Rules, truth: Truth, ids: Mapping[Identifier, str], output: Output) -> None:
    for group, facts in truth.people.items():
        profile = output.profiles.get(ids.get(min(group), ""))
        if profile is None:
            continue
        for name, said in rules.computed.items():
            early, late = (compute(said, facts, at) for at in (output.after - BEHIND_MS, output.before))
            got = profile.get("computed", {}).get(name)
            verdict.counts["computed"] += 1
            if alike(early, late) and not alike(got, late):
                verdict.find(f"computed {name} of {sorted(group)}: {got!r}, and not {late!r}")


# ---------------------------------------------------------------------------------------------------------- memberships


def _everybody(truth: Truth, ids: Mapping[Identifier, str]) -> Iterator[tuple[str, str, str, Facts]]:
    for group, facts in truth.people.items():
        yield "person", str(sorted(group)), ids.get(min(group), ""), facts
    for name, facts in truth.accounts.items():
        yield "account", f"account:{name}", ids.get(f"account:{name}", ""), facts


def _members(verdict: Verdict, rules: Rules, truth: Truth, ids: Mapping[Identifier, str], output: Output) -> None:
    for entity, name, profile_id, facts in _everybody(truth, ids):
        if profile_id not in output.profiles:
            continue
        for segment in rules.names(entity):
            looks = {rules.is_member(segment, facts, at) for at in moments(output)}
            is_member = f"{segment}/{profile_id}" in output.members
            verdict.counts["pairs"] += 1
            if len(looks) == 2:
                verdict.counts["pairs that flip just then"] += 1
            elif is_member not in looks:
                verdict.find(f"{name} {profile_id} {'is' if is_member else 'is not'} in {segment}, by the table")
            shown = segment in output.profiles[profile_id].get("segments", {})
            if shown != is_member:
                verdict.find(f"{segment} of {name}: the profile says {shown}, the table {is_member}")


def moments(output: Output) -> list[int]:
    """Instants between which a table that was read may stand."""
    return [*range(output.after - BEHIND_MS, output.before + 1, 100), output.before]


def _logs(verdict: Verdict, world: World, output: Output) -> None:
    """Alternating, numbered without a gap, and their folds are the tables. A switch may leave a gap."""
    last: dict[str, Any] = {}
    first_heard = {f"{each['segment']}/{each['profile_id']}": each for each in reversed(output.segment_changes)}
    for change in world.before + output.segment_changes:
        pair = f"{change['segment']}/{change['profile_id']}"
        before = last.get(pair)
        verdict.counts["segment changes"] += 1
        expected = before["sequence"] + 1 if before else 1
        is_switch = bool(world.starts) and change is first_heard.get(pair)
        if change["sequence"] != expected and not (is_switch and change["sequence"] > expected):
            verdict.find(f"{pair}: sequence {change['sequence']} after {before and before['sequence']}")
        if change["change"] == (before["change"] if before else "exited"):
            verdict.find(f"{pair}: {change['change']} twice, or first: {change}")
        if before and change["at"] < before["at"]:
            verdict.find(f"{pair}: at goes back from {before['at']} to {change['at']}")
        if change.get("approximate"):
            verdict.find(f"{pair}: approximate, with few events: {change}")
        last[pair] = change
    folded = {pair: change for pair, change in last.items() if change["change"] == "entered"}
    for pair in folded.keys() ^ output.members.keys():
        verdict.find(f"{pair}: in the {'log' if pair in folded else 'table'} only: {last.get(pair)}")
    for pair in folded.keys() & output.members.keys():
        row, change = output.members[pair], folded[pair]
        if world.starts and pair not in first_heard:
            # Both workspaces had it so: since when is each one's own, and the table tells nobody anything old as new.
            wrong = row["sequence"] < change["sequence"]
        else:
            wrong = (row["since"], row["sequence"]) != (change["at"], change["sequence"])
        if wrong:
            verdict.find(f"{pair}: the table says {row}, the log {change}")
    profiles = fold_profiles(output.profile_changes)
    for profile_id in profiles.keys() | output.profiles.keys():
        left, right = profiles.get(profile_id), output.profiles.get(profile_id)
        if left is None or right is None or not alike(without_empty(left), without_empty(right)):
            left, right = without_empty(left or {}), without_empty(right or {})
            other = [name for name in left.keys() | right.keys() if not alike(left.get(name), right.get(name))]
            for name in other:
                verdict.find(f"{name} of {profile_id}: the log folds to {left.get(name)}, and not {right.get(name)}")


def fold_profiles(changes: list[Any]) -> dict[str, dict[str, Any]]:
    """As the schema of `profile-changes` says."""
    found: dict[str, dict[str, Any]] = {}
    for change in changes:
        profile_id = change["profile_id"]
        if change["change"] in {"merged", "expired", "erased"}:
            found.pop(profile_id, None)
            continue
        if change["change"] in {"created", "split"}:
            found[profile_id] = {"profile_id": profile_id, "entity": change["entity"]}
        profile = found[profile_id]
        for section, value in change.get("set", {}).items():
            if isinstance(value, dict):
                profile.setdefault(section, {}).update(value)
            else:
                profile[section] = value
        for section, names in change.get("unset", {}).items():
            for name in names:
                profile.get(section, {}).pop(name, None)
    return found


def without_empty(profile: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in profile.items() if value not in ({}, [])}


def _alone(
    verdict: Verdict,
    world: World,
    rules: Rules,
    known: Known,
    truth: Truth,
    ids: Mapping[Identifier, str],
    output: Output,
) -> None:
    """The log of whoever has one identifier, and never had another, to the millisecond."""
    if world.stands_in != "first":
        return  # what begins and ends within `--ahead` need not be told by a copy; and a switch tells the difference
    logs: dict[tuple[str, str], list[Change]] = defaultdict(list)
    for change in output.segment_changes:
        found = Change(change["change"], change["at"], change["cause"])
        logs[change["segment"], change["profile_id"]].append(found)
    clocks: dict[int, int] = {}
    for event in world.history:
        if isinstance(event, Sent):
            clocks[event.number] = max(event.received, *list(clocks.values())[-1:], 0)
    for person in world.traffic.people:
        profile_id = ids.get(person.identifiers[0])
        if not person.loner or profile_id is None:
            continue
        events = [event for event in known.events if event.route == person.identifiers[0]]
        for segment in rules.names("person"):
            if segment in world.changed_later() or segment in {"hot", "with_enterprise"}:
                continue
            right = histories(rules, segment, profile_id, events, clocks, output.before)
            log = logs[segment, profile_id]
            verdict.counts["histories"] += 1
            if any(starts(each, log) and due(each, output.after - BEHIND_MS) <= len(log) for each in right):
                continue
            if len(right) > 1:
                verdict.counts["histories that the lag decides"] += 1
            else:
                verdict.find(f"{segment} of {person.identifiers[0]} {profile_id}: {log}, and not {right[0]}")


def starts(whole: list[Change], log: list[Change]) -> bool:
    return whole[: len(log)] == log


def due(log: list[Change], until: int) -> int:
    """How many of these have happened by then."""
    return sum(1 for change in log if change.at <= until)


def _refused(verdict: Verdict, world: World, output: Output) -> None:
    """What must not be a dead letter. It is taken out of the history, so that all else can be compared."""
    dead = {(each["partition"], each["offset"]): each for each in output.dead if each["topic"].endswith("raw")}
    for each in output.dead:
        if not each["topic"].endswith("raw"):
            verdict.find(f"a dead letter of {each['topic']}: {each['reason']} {each['detail'][:300]}")
    for event in world.history:
        if isinstance(event, Sent) and event.expected == "used" and event.place in dead:
            letter = dead[event.place]
            verdict.find(f"refused: {letter['reason']} {letter['detail'][:200]}: {event.value!r}")
            event.expected = "refused"
    for sent in [*world.strange, *world.strange_posted]:
        profile = output.profiles.get(output.identities.get(sent.route, {}).get("profile_id", ""))
        used = sum(total["count"] for total in profile["totals"].values()) if profile else 0
        verdict.counts["strange"] += 1
        expected = sent.posted in {0, 200}
        if used + (sent.place in dead) != expected or (sent.expected == "refused" and used):
            verdict.find(f"{sent.what}: {used} in a profile, dead letter: {dead.get(sent.place)}")
        verdict.counts["strange that are used"] += used
