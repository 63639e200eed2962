"""The identity definition of DESIGN section 4 once more, over the whole log at once, with nothing incremental in it.

It shares no code with the room but the hash and the priorities of the rules.
"""

from typing import Any

from pipeline.identity import IdentityRules
from pipeline.records import EraseRequest, Evidence, Release, Relink, RulesChanged, Unlink

FOREVER = float("inf")


class Reference:
    """Folds a log into facts; `groups` resolves them from scratch."""

    def __init__(self, rules: dict[int, IdentityRules], neighbours: int = 10**9, members: int = 10**9) -> None:
        self.rules = rules
        self.current = rules[0]
        self.neighbours = neighbours
        self.most_members = members
        self.edges: dict[tuple[str, str], list[int]] = {}
        self.pair_cuts: dict[tuple[str, str], float] = {}
        self.end_cuts: dict[str, float] = {}
        self.erased_at: dict[str, int] = {}
        self.exempt: dict[str, set[tuple[str, str]]] = {}
        self.known: set[str] = set()
        self.sticky: set[str] = set()

    def say(self, record: Any) -> None:
        match record:
            case Evidence(a=a, b=b, first=first, last_received=last):
                if a == b:
                    return
                self.known.update((a, b))
                if last <= max(self.erased_at.get(a, -1), self.erased_at.get(b, -1)):
                    return
                edge = self.edges.setdefault((a, b), [first, last])
                edge[0] = min(edge[0], first)
                edge[1] = max(edge[1], last)
            case Unlink(a=a, b=b, received=received, forever=forever) if a != b:
                cut = FOREVER if forever else received
                if b:
                    pair = (min(a, b), max(a, b))
                    self.pair_cuts[pair] = max(cut, self.pair_cuts.get(pair, cut))
                else:
                    self.end_cuts[a] = max(cut, self.end_cuts.get(a, cut))
            case Relink(a=a, b=b):
                if b:
                    self.pair_cuts.pop((min(a, b), max(a, b)), None)
                else:
                    self.end_cuts.pop(a, None)
            case Release(identifier=text):
                self.exempt[text] = {pair for pair in self.edges if text in pair}
                self.sticky.discard(text)
            case EraseRequest(identifier=text, received=received):
                group = self.members(text)
                for one in group:
                    self.known.add(one)
                    self.erased_at[one] = max(received, self.erased_at.get(one, -1))
                    self.end_cuts.pop(one, None)
                    self.exempt.pop(one, None)
                    self.sticky.discard(one)
                for held in (self.edges, self.pair_cuts):
                    for pair in [pair for pair in held if pair[0] in group or pair[1] in group]:
                        del held[pair]
                        for exempt in self.exempt.values():
                            exempt.discard(pair)
            case RulesChanged(generation=generation):
                if self.rules[generation] != self.current:
                    self.current = self.rules[generation]
                    self.sticky = set()
        # Quarantine stays when an erasure takes the evidence for it away.
        self.sticky |= self.crowded()

    def most(self, text: str) -> int:
        """How many people an identifier may touch."""
        own = self.current.namespace(text.partition(":")[0]).quarantine_after
        return self.current.quarantine_after if own is None else own

    def is_person(self, name: str) -> bool:
        """Whether the values of a namespace are people to what touches them."""
        namespace = self.current.namespace(name)
        return namespace.unique or namespace.limit == 1 if namespace.person is None else namespace.person

    def crowded(self) -> set[str]:
        crowded = set()
        for text in {end for pair in self.edges for end in pair}:
            new = [pair for pair in self.edges if text in pair and pair not in self.exempt.get(text, ())]
            others = [a if b == text else b for a, b in new]
            per_namespace: dict[str, int] = {}
            for other in others:
                namespace = other.partition(":")[0]
                per_namespace[namespace] = per_namespace.get(namespace, 0) + 1
            if len(others) > self.neighbours or any(
                count > self.most(text) and self.is_person(namespace) for namespace, count in per_namespace.items()
            ):
                crowded.add(text)
        return crowded

    def counting(self) -> dict[tuple[str, str], int]:
        found = {}
        for (a, b), (first, last) in self.edges.items():
            cuts = (self.pair_cuts.get((a, b), -1), self.end_cuts.get(a, -1), self.end_cuts.get(b, -1))
            if last > max(cuts):
                found[(a, b)] = first
        return found

    def names(self) -> dict[str, str]:
        """The name of everybody's profile."""
        rules, counting = self.current, self.counting()
        dropped = {text for text in self.known if rules.clean(*text.split(":", 1)) != text.split(":", 1)[1]}
        dropped |= self.sticky

        def order(pair: tuple[str, str]) -> Any:
            strong, weak = sorted(pair, key=rules.order)
            latest = "latest" in {rules.namespace(text.partition(":")[0]).on_conflict for text in pair}
            first = -counting[pair] if latest else counting[pair]
            return (rules.priority(strong), rules.priority(weak), first, rules.order(strong)[1], rules.order(weak)[1])

        groups: list[set[str]] = [{text} for text in sorted(self.known)]
        for a, b in sorted((pair for pair in counting if not dropped & set(pair)), key=order):
            one = next(group for group in groups if a in group)
            other = next(group for group in groups if b in group)
            if one is other or not self._allowed(one | other):
                continue
            groups.remove(other)
            one |= other
        names = {}
        for group in groups:
            name = min(group, key=lambda text: self._strength(text, counting))
            names.update(dict.fromkeys(group, name))
        return names

    def members(self, text: str) -> set[str]:
        names = self.names()
        return {one for one, name in names.items() if name == names.get(text)} | {text}

    def _strength(self, text: str, counting: dict[tuple[str, str], int]) -> Any:
        priority, hashed = self.current.order(text)
        return priority, min((first for pair, first in counting.items() if text in pair), default=0), hashed

    def _allowed(self, group: set[str]) -> bool:
        held: dict[str, int] = {}
        for text in group:
            namespace = text.partition(":")[0]
            held[namespace] = held.get(namespace, 0) + 1
        capacities = ((count, self.current.namespace(namespace).capacity) for namespace, count in held.items())
        return len(group) <= self.most_members and all(limit is None or count <= limit for count, limit in capacities)
