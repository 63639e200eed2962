"""How well people are told apart: pairwise precision and recall of identity on people with ground truth.

`python -m tests.simulation.score --people 2000 --seeds 3 --rules FILE`. Two events are a pair if they are given to
the same person. The platform's answer stands beside plain union-find over the raw identifiers, which has no rules, and
beside the ceiling: somebody who knows everything, but cannot tell apart who gives the same address and no account.
"""

import argparse
import json
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import yaml

from pipeline.definitions.identity import parse_identity
from pipeline.identifiers import Keys
from pipeline.identity import IdentityRules, builtin_rules
from pipeline.ingest import Emit, ingest
from pipeline.records import Assign, Event, Evidence, decode_links_record, encode
from pipeline.runtime.ports import Record
from tests.oracle.identity import NamespaceRule, Resolution, Rules, resolve
from tests.oracle.profiles import accept, gather_evidence
from tests.simulation.driver import Buffer, OverlayState
from tests.simulation.people import JUNK, TEST_ADDRESSES, Mix, Said, people
from tests.simulation.wiring import identity_stage

ORDINARY = Mix()


class Score(NamedTuple):
    """Of the pairs put together, the share that belongs together; of those that belong together, the share found."""

    precision: float
    recall: float


def pairwise(true: Sequence[Hashable], found: Sequence[Hashable]) -> Score:
    """Precision and recall over all pairs of items with these true and found groups."""

    def pairs(groups: Iterable[Hashable]) -> int:
        return sum(count * (count - 1) // 2 for count in Counter(groups).values())

    both = pairs(zip(true, found, strict=True))
    return Score(both / max(1, pairs(found)), both / max(1, pairs(true)))


def ingested(said: Sequence[Said], rules: IdentityRules | None = None) -> list[tuple[Said, Event]]:
    """What the ingest room makes of the messages; what it refuses is nobody's."""
    rules = rules or builtin_rules()
    kept = []
    for offset, one in enumerate(said):
        value = json.dumps(one.message).encode()
        record = Record("raw", 0, offset, None, value, one.received)
        outcome = ingest(record, one.received, rules)
        if isinstance(outcome, Emit):
            kept.append((one, outcome.event))
    return kept


def raw_groups(said: Sequence[Said]) -> list[str]:
    """Plain union-find over every identifier as it was sent: what a system without rules believes."""
    parent: dict[str, str] = {}

    def root(one: str) -> str:
        parent.setdefault(one, one)
        while parent[one] != one:
            parent[one] = parent[parent[one]]
            one = parent[one]
        return one

    firsts = []
    for one in said:
        message = one.message
        identifiers = {
            "user": message.get("userId"),
            "anonymous": message.get("anonymousId"),
            "device": message["context"].get("device", {}).get("id"),
            **message.get("identifiers", {}),
        }
        texts = [f"{namespace}:{value}" for namespace, value in identifiers.items() if value]
        texts = texts or [message["messageId"]]
        for text in texts[1:]:
            parent[root(text)] = root(texts[0])
        firsts.append(texts[0])
    return [root(first) for first in firsts]


def resolution_of(events: Sequence[Event], rules: Rules) -> Resolution:
    """Who is who among these events, by the oracle's reading of the rules."""
    return resolve(gather_evidence(accept([events]).events), rules)


def oracle_rules(rules: IdentityRules) -> Rules:
    """The oracle's rules for those of a definition."""
    return Rules(
        {
            one.name: NamespaceRule(
                one.name, one.priority, one.capacity, one.on_conflict, one.quarantine_after, one.person
            )
            for one in rules.namespaces.values()
        },
        rules.quarantine_after,
    )


def names_by_stage(events: Sequence[Event], rules: Rules) -> dict[str, str]:
    """Who is who among these events by the identity stage itself: identifier to the name of its profile."""
    keys = Keys(b"score")
    make_stage = identity_stage(rules, 1, 0, keys)
    stage = make_stage(0)
    state, out = OverlayState(stage, {}), Buffer()
    told: dict[tuple[str, str], int] = {}
    for event in accept([events]).events:
        for a, b in combinations(sorted(set(event.identifiers)), 2):
            if event.time < told.get((a, b), event.time + 1):
                told[a, b] = event.time
                evidence = Evidence(a, b, event.time, event.received, event.identifiers[0])
                stage.step(Record("identity-edges", 0, len(told), None, encode(evidence)), state, out)
    stage.finish(state, out)
    names: dict[str, str] = {}
    for topic, _, value, _ in out.logged:
        message = decode_links_record(value) if topic == "links" else None
        if isinstance(message, Assign):
            names[message.identifier] = message.name
    return names


def scores(count: int, seed: int = 1, mix: Mix = ORDINARY, rules: IdentityRules | None = None) -> tuple[Score, ...]:
    """(with the rules, plain union-find, the ceiling) over the events of `count` people."""
    rules = rules or builtin_rules()
    town = people(seed, count, mix)
    kept = ingested(town, rules)
    said = [one for one, _ in kept]
    events = [event for _, event in kept]
    who = resolution_of(events, oracle_rules(rules))
    true = [one.person for one in said]
    found = [who.name_of.get(event.identifiers[0], event.identifiers[0]) for event in events]
    return pairwise(true, found), pairwise(true, raw_groups(said)), pairwise(true, as_good_as_it_gets(said))


def as_good_as_it_gets(said: Sequence[Said]) -> list[Hashable]:
    """Everybody's events by who they are, but for those without an account, who are the address they gave."""
    account: dict[int, str] = {}
    address: dict[int, str] = {}
    for one in said:
        user, email = one.message.get("userId"), one.message.get("identifiers", {}).get("email")
        if user and user not in JUNK:
            account[one.person] = user
        if email and email not in TEST_ADDRESSES:
            address[one.person] = email
    owner = {address[person]: user for person, user in account.items() if person in address}
    found: list[Hashable] = []
    for one in said:
        given = address.get(one.person)
        found.append(account.get(one.person) or owner.get(given or "") or given or one.person)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--with-account", type=float, default=ORDINARY.with_account)
    parser.add_argument("--rules", type=Path, help="an identity.yaml; without it, the rules as shipped")
    arguments = parser.parse_args()
    mix = Mix(with_account=arguments.with_account)
    rules = builtin_rules()
    if arguments.rules:
        rules = parse_identity(yaml.safe_load(arguments.rules.read_text()), str(arguments.rules)).to_rules()
    for seed in range(arguments.seed, arguments.seed + arguments.seeds):
        ours, plain, ceiling = scores(arguments.people, seed, mix, rules)
        for what, one in (("with the rules", ours), ("plain union-find", plain), ("the ceiling", ceiling)):
            print(f"seed {seed:<6} {what:<18} precision {one.precision:.4f}  recall {one.recall:.4f}", flush=True)


if __name__ == "__main__":
    main()
