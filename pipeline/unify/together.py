"""What all people of an account did together: the join of their leaves, in a tree over the keys of their actors.

A join cannot be taken back: what somebody takes along when they leave is left out by joining all others anew. In a tree
that is a few joins of a few, however many people there are. A node joins its children, one for each hexadecimal digit
that may follow; the lowest join at most `_MOST_BELOW` people, whose records are read from the state when they are
needed. Nothing of it is stored: the tree is made of the people once and then changed with each message.
"""

from collections.abc import Iterable, Iterator
from itertools import chain, groupby, islice
from typing import Any

from pipeline.at_rest import awakened
from pipeline.records import Event
from pipeline.runtime.ports import State
from pipeline.segments import SegmentsPlan

Leaves = dict[str, Any]

# More people than this below a node, and it gets children; no more than half of them, and it loses these again.
_MOST_BELOW = 32
_ROOT = b""
_DIGITS = tuple(f"{number:x}".encode() for number in range(16))


class Together:
    """The tree of one account. `root` is what all did, and stays the same object; its leaves are awake.

    `prefix` begins the keys of the account's people in the state; what follows it in a key is a person's *place*.
    """

    __slots__ = ("_nodes", "_people", "_prefix", "_split", "_states", "root", "rules")

    def __init__(self, prefix: bytes, rules: SegmentsPlan, people: Iterable[tuple[bytes, Leaves]]) -> None:
        """`people`: (place, leaves) of everybody, in the order of their places."""
        self.rules = rules
        self.root: Leaves = {}
        self._prefix = prefix
        self._states: dict[bytes, Leaves] = {_ROOT: self.root}
        self._people: dict[bytes, int] = {}
        self._split: set[bytes] = set()
        self.root.update(self._made(_ROOT, iter(people)))

    def _made(self, node: bytes, people: Iterator[tuple[bytes, Leaves]]) -> Leaves:
        first = list(islice(people, _MOST_BELOW + 1))
        depth = len(node)
        if len(first) <= _MOST_BELOW:
            self._people[node] = len(first)
            return join_all(self.rules, (leaves for _, leaves in first))
        self._split.add(node)
        number, states = 0, []
        for digit, below in groupby(chain(first, people), lambda one: one[0][depth : depth + 1]):
            child = node + digit
            state = self._states[child] = self._made(child, below)
            states.append(state)
            number += self._people[child]
        self._people[node] = number
        return join_all(self.rules, states)

    def _path(self, place: bytes) -> list[bytes]:
        """The nodes above a place, the root first."""
        path, node = [_ROOT], _ROOT
        while node in self._split:
            node = place[: len(node) + 1]
            path.append(node)
            if node not in self._states:
                self._states[node], self._people[node] = {}, 0
        return path

    # -------------------------------------------------------------------------------------------------------- changes

    def fold(self, place: bytes, plan: SegmentsPlan, event: Event) -> tuple[str, ...]:
        """Fold an event of the person at `place` by `plan`. Gives the leaves of all that changed. What is too old to be
        among the newest of all may be among those of fewer."""
        changed = plan.fold(self.root, event)
        if self._split:
            for node in self._path(place)[1:]:
                plan.fold(self._states[node], event)
        return changed

    def change(self, state: State, before: dict[bytes, Leaves], after: dict[bytes, Leaves]) -> set[str]:
        """By place: what goes of what somebody brought, and what they bring instead, or more. The state holds the
        people as they are now. Gives the leaves of all that are different: what only went from one person to another,
        or is the same as it was, costs nothing there."""
        rules, anew = self.rules, dict[bytes, set[str]]()
        before = {place: join_all(rules, (leaves,)) for place, leaves in before.items()}
        after = {place: join_all(rules, (leaves,)) for place, leaves in after.items()}
        gone, there = join_all(rules, before.values()), join_all(rules, after.values())
        different = {one for one in gone.keys() | there.keys() if gone.get(one) != there.get(one)}
        for place in before.keys() | after.keys():
            old, new = before.get(place, {}), after.get(place, {})
            lost = {one for one, held in old.items() if held != new.get(one)}
            come = {one: held for one, held in new.items() if one not in old}
            for node in self._path(place):
                if node == _ROOT:
                    anew.setdefault(node, set()).update(lost & different)
                    self._join_in(self.root, {one: held for one, held in come.items() if one in different})
                else:
                    anew.setdefault(node, set()).update(lost)
                    self._join_in(self._states[node], come)
        for node in sorted(anew, key=len, reverse=True):
            if anew[node]:
                self._join_anew(state, node, anew[node])
        return different

    def count(self, state: State, place: bytes, number: int) -> None:
        """Somebody has come (1), or has gone (-1), and what they brought is in the tree, or out of it."""
        path = self._path(place)
        for node in path:
            self._people[node] += number
        for node in path:
            if node in self._split and self._people[node] <= _MOST_BELOW // 2:
                self._unite(node)
                return
        if self._people[path[-1]] > _MOST_BELOW:
            self._divide(state, path[-1])

    def _divide(self, state: State, node: bytes) -> None:
        self._split.add(node)
        children: dict[bytes, list[Leaves]] = {}
        for place, leaves in self._below(state, node):
            children.setdefault(place[: len(node) + 1], []).append(leaves)
        for child, many in children.items():
            self._people[child] = len(many)
            self._states[child] = join_all(self.rules, many)

    def _unite(self, node: bytes) -> None:
        for below in [one for one in self._states if len(one) > len(node) and one.startswith(node)]:
            del self._states[below], self._people[below]
        self._split = {one for one in self._split if not one.startswith(node)}

    def _join_in(self, states: Leaves, come: Leaves) -> None:
        if come:
            joined = self.rules.join({one: states[one] for one in come if one in states}, come)
            states.update((one, awakened(held)) for one, held in joined.items())

    def _join_anew(self, state: State, node: bytes, leaf_ids: set[str]) -> None:
        if node in self._split:
            below = (self._states.get(node + digit, {}) for digit in _DIGITS)
        else:
            below = (leaves for _, leaves in self._below(state, node))
        joined = join_all(self.rules, ({one: held for one, held in many.items() if one in leaf_ids} for many in below))
        states = self._states[node]
        for leaf_id in leaf_ids:
            if leaf_id in joined:
                states[leaf_id] = joined[leaf_id]
            else:
                states.pop(leaf_id, None)

    def _below(self, state: State, node: bytes) -> Iterator[tuple[bytes, Leaves]]:
        start = len(self._prefix)
        for key, person in state.scan(self._prefix + node):
            yield key[start:], person.leaves


def join_all(rules: SegmentsPlan, many: Iterable[Leaves]) -> Leaves:
    """The join of leaf states, awake; shares nothing with them. Joins in pairs of like size: joining one by one would
    copy what there is already again with each."""
    levels: list[Leaves | None] = []
    for one in many:
        if not one:
            continue
        carried = rules.join({}, one)
        place = 0
        while place < len(levels) and (there := levels[place]) is not None:
            carried, levels[place] = rules.join(there, carried), None
            place += 1
        if place == len(levels):
            levels.append(None)
        levels[place] = carried
    joined: Leaves = {}
    for level in levels:
        if level is not None:
            joined = rules.join(joined, level)
    return {leaf_id: awakened(state) for leaf_id, state in joined.items()}
