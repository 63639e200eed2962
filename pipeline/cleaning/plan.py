"""The frozen plan of all cleaning in force, and how an event goes through it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol


class Draft:
    """An event that is being cleaned: its name, and its properties, traits and context, changed in place."""

    __slots__ = ("event", "flags", "sections")

    def __init__(self, event: str, sections: dict[str, dict[str, Any]]) -> None:
        self.event = event
        self.sections = sections
        self.flags: list[str] = []


@dataclass(frozen=True, slots=True)
class Reference:
    """A table of somebody else: a topic of rows by key. `key` leads to it in the row; empty: the record's own key."""

    name: str
    topic: str
    key: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    provenance: str = ""
    max_rows: int = 200_000


class Failed(Exception):
    """A function could not be called, raised, or took too long. The message is for a person."""


class Spoiled(Exception):
    """A step failed that the event may not go on without; the message says which and why."""


def _no_hash(text: str) -> str:
    raise Failed("hashes need the workspace's secret, which is not at hand here")


def _no_call(name: str, event: dict[str, Any], timeout_ms: int) -> Any:
    raise Failed("functions are only called where ingest runs")


def _no_row(reference: Reference, key: str) -> dict[str, Any] | None:
    raise Failed(f"the reference {reference.name} is only at hand where ingest runs")


@dataclass(frozen=True, slots=True)
class Tools:
    """What steps need from outside: a keyed hash, a way to call a function by its name, the rows of references."""

    hashed: Callable[[str], str] = _no_hash
    call: Callable[[str, dict[str, Any], int], Any] = _no_call
    row: Callable[[Reference, str], dict[str, Any] | None] = _no_row


class Step(Protocol):
    """One change. May add to `draft.flags`; raises Failed."""

    def apply(self, draft: Draft, tools: Tools) -> None:
        """Change the draft."""
        ...


@dataclass(frozen=True, slots=True)
class Cleaning:
    """One definition in force: steps, for the events of some sources. `sources` and `events` None: of all."""

    name: str
    sources: frozenset[str] | None
    events: frozenset[str] | None
    steps: tuple[Step, ...]
    on_failure: Literal["pass", "reject"] = "pass"


@dataclass(frozen=True, slots=True)
class CleaningPlan:
    """All cleaning in force, in the order of names."""

    cleanings: tuple[Cleaning, ...] = ()
    _by_source: dict[str, tuple[Cleaning, ...]] = field(init=False, compare=False, default_factory=dict)
    _of_all: tuple[Cleaning, ...] = field(init=False, compare=False, default=())

    def __post_init__(self) -> None:
        named = {source for each in self.cleanings for source in each.sources or ()}
        for source in named:
            self._by_source[source] = tuple(
                each for each in self.cleanings if each.sources is None or source in each.sources
            )
        object.__setattr__(self, "_of_all", tuple(each for each in self.cleanings if each.sources is None))

    def apply(self, source: str, draft: Draft, tools: Tools) -> None:
        """Clean an event of a source.

        Raises:
            Spoiled: a step failed, and its definition says `on_failure: reject`.
        """
        for cleaning in self._by_source.get(source, self._of_all):
            if cleaning.events is not None and draft.event not in cleaning.events:
                continue
            for step in cleaning.steps:
                try:
                    step.apply(draft, tools)
                except Failed as failed:
                    if cleaning.on_failure == "reject":
                        raise Spoiled(f"{cleaning.name}: {failed}") from None
                    draft.flags.append(f"cleaning_failed:{cleaning.name}")


NO_CLEANING = CleaningPlan()
NO_TOOLS = Tools()


def containers(sections: dict[str, dict[str, Any]], path: tuple[str, ...]) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) a path leads to that is there. "*" stands for every item of a list."""
    level: list[Any] = [sections]
    for step in path[:-1]:
        deeper: list[Any] = []
        for parent in level:
            if step == "*":
                deeper += parent if isinstance(parent, list) else ()
            elif isinstance(parent, dict) and step in parent:
                deeper.append(parent[step])
        level = deeper
    last = path[-1]
    for parent in level:
        if last == "*" and isinstance(parent, list):
            yield from ((parent, index) for index in range(len(parent)))
        elif isinstance(parent, dict) and last in parent:
            yield parent, last


def put(sections: dict[str, dict[str, Any]], path: tuple[str, ...], value: Any) -> bool:
    """Put a value where a path leads, making objects on the way; False where something else stands in the way."""
    parent: Any = sections
    for step in path[:-1]:
        if not isinstance(parent, dict):
            return False
        parent = parent.setdefault(step, {})
    if not isinstance(parent, dict):
        return False
    parent[path[-1]] = value
    return True
