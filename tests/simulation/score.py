"""How well people are told apart: pairwise precision and recall of identity on people with ground truth.

`python -m tests.simulation.score --people 2000 --seed 1 --seeds 3 --with-account 1.0 --rules shipped strict FILE`. Two
events are a pair if they are given to the same person; with `--identifiers`, two identifiers are. The answers
stand beside plain union-find over the raw identifiers, which has no rules, and beside the ceiling: somebody who knows
everything, but cannot tell apart who gives the same address and no account. Then the wrong pairs, by kind.
"""

import argparse
import json
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from statistics import mean
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


@dataclass
class Judged:
    """What became of the people of one town under one set of rules."""

    said: list[Said]
    events: list[Event]
    who: Resolution
    true: list[int] = field(init=False)
    found: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.true = [one.person for one in self.said]
        self.found = [self.who.name_of.get(event.identifiers[0], event.identifiers[0]) for event in self.events]

    def by_events(self) -> Score:
        """Over pairs of events."""
        return pairwise(self.true, self.found)

    def by_identifiers(self) -> Score:
        """Over pairs of identifiers. Each is whose it was most often, but a test address is nobody's."""
        uses: dict[str, Counter[int]] = {}
        for person, event in zip(self.true, self.events, strict=True):
            for text in event.identifiers:
                uses.setdefault(text, Counter())[person] += 1
        true = [
            text if text.partition(":")[2] in TEST_ADDRESSES else min(used, key=lambda one: (-used[one], one))
            for text, used in uses.items()
        ]
        return pairwise(true, [self.who.name_of.get(text, text) for text in uses])

    def wrong_pairs(self) -> Counter[str]:
        """How many pairs of events of two people were put together, by what misled."""
        accounts, addresses = _known_by(self.said)
        groups: dict[str, Counter[int]] = {}
        for true, found in zip(self.true, self.found, strict=True):
            groups.setdefault(found, Counter())[true] += 1
        kinds: Counter[str] = Counter()
        for name, group in groups.items():
            value = name.partition(":")[2]
            for (one, count), (other, another) in combinations(group.items(), 2):
                if value in TEST_ADDRESSES:
                    kind = "at a test address"
                elif name in self.who.quarantined:
                    kind = "at a device or browser that is nobody's"
                elif one in accounts and other in accounts:
                    kind = "not logged in then, on the device of another"
                elif addresses.get(one, 1) == addresses.get(other, 2):
                    kind = "never logged in, at a family address"
                else:
                    kind = "never logged in, on the device of another"
                kinds[kind] += count * another
        return kinds


def judge(town: Sequence[Said], rules: IdentityRules) -> Judged:
    """Who is who in a town, by these rules."""
    kept = ingested(town, rules)
    events = [event for _, event in kept]
    return Judged([one for one, _ in kept], events, resolution_of(events, oracle_rules(rules)))


def scores(count: int, seed: int = 1, mix: Mix = ORDINARY, rules: IdentityRules | None = None) -> tuple[Score, ...]:
    """(with the rules, plain union-find, the ceiling) over the events of `count` people."""
    judged = judge(people(seed, count, mix), rules or builtin_rules())
    said, true = judged.said, judged.true
    return judged.by_events(), pairwise(true, raw_groups(said)), pairwise(true, as_good_as_it_gets(said))


def _known_by(said: Sequence[Said]) -> tuple[dict[int, str], dict[int, str]]:
    """By person: the account, and the address."""
    account: dict[int, str] = {}
    address: dict[int, str] = {}
    for one in said:
        user, email = one.message.get("userId"), one.message.get("identifiers", {}).get("email")
        if user and user not in JUNK:
            account[one.person] = user
        if email and email not in TEST_ADDRESSES:
            address[one.person] = email
    return account, address


def as_good_as_it_gets(said: Sequence[Said]) -> list[Hashable]:
    """Everybody's events by who they are, but for those without an account, who are the address they gave."""
    account, address = _known_by(said)
    owner = {address[person]: user for person, user in account.items() if person in address}
    found: list[Hashable] = []
    for one in said:
        given = address.get(one.person)
        found.append(account.get(one.person) or owner.get(given or "") or given or one.person)
    return found


def rules_named(name: str) -> IdentityRules:
    """The rules of a name, `shipped` or a preset, or of a file."""
    if name == "shipped":
        return builtin_rules()
    if name == "strict":
        return parse_identity({"preset": name}).to_rules()
    return parse_identity(yaml.safe_load(Path(name).read_text()), name).to_rules()


def compare(seeds: Sequence[int], count: int, mix: Mix, rules: dict[str, IdentityRules], identifiers: bool) -> None:
    """Print a table: precision and recall of each seed, their least and mean, and the kinds of wrong pairs."""
    columns: dict[str, list[Score]] = {}
    wrong: dict[str, Counter[str]] = {name: Counter() for name in rules}
    pairs = dict.fromkeys(rules, 0)
    for seed in seeds:
        town = people(seed, count, mix)
        for name, one in rules.items():
            judged = judge(town, one)
            columns.setdefault(name, []).append(judged.by_identifiers() if identifiers else judged.by_events())
            wrong[name] += judged.wrong_pairs()
            pairs[name] += sum(size * (size - 1) // 2 for size in Counter(judged.found).values())
        if not identifiers:
            for name, groups in (("ceiling", as_good_as_it_gets(judged.said)), ("plain", raw_groups(judged.said))):
                columns.setdefault(name, []).append(pairwise(judged.true, groups))
        _print_row(str(seed), [column[-1] for column in columns.values()], columns if seed == seeds[0] else ())
    _print_row("least", [Score(*map(min, zip(*column, strict=True))) for column in columns.values()])
    _print_row("mean", [Score(*map(mean, zip(*column, strict=True))) for column in columns.values()])
    for name, kinds in wrong.items():
        print(f"wrong pairs of events, {name}, % of {pairs[name]}:")
        for kind, number in kinds.most_common():
            print(f"  {100 * number / pairs[name]:6.3f}  {kind}", flush=True)


def _print_row(what: str, row: Sequence[Score], heads: Iterable[str] = ()) -> None:
    if heads:
        print(f"{'seed':<8}" + "".join(f"{Path(head).stem:<16}" for head in heads) + "  (precision/recall)")
    print(f"{what:<8}" + "".join(f"{one.precision:.4f}/{one.recall:.4f}   " for one in row), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--with-account", type=float, nargs="+", default=[1.0, 0.97, ORDINARY.with_account])
    parser.add_argument("--second-addresses", type=float, default=0.0, help="share of people with two addresses")
    parser.add_argument("--rules", nargs="+", default=["shipped", "strict"], help="or files like identity.yaml")
    parser.add_argument("--identifiers", action="store_true", help="pairs of identifiers, not of events")
    arguments = parser.parse_args()
    rules = {name: rules_named(name) for name in arguments.rules}
    seeds = range(arguments.seed, arguments.seed + arguments.seeds)
    for share in arguments.with_account:
        print(f"{share:.0%} of {arguments.people} people have an account")
        mix = Mix(with_account=share, second_addresses=arguments.second_addresses)
        compare(seeds, arguments.people, mix, rules, arguments.identifiers)


if __name__ == "__main__":
    main()
