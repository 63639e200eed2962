"""What becomes of an event that its contract did not expect.

    the event is not in the contract     unplanned_events: allow, flag, reject
    a property (or trait) is not in it   unplanned_properties: allow, flag, strip, reject
    the schema is violated               on_violation: flag, strip, reject

Stripping takes away what violates. What still violates then (something required is missing) is rejected: behind a
contract that strips there is nothing that breaks it. Every violation is told, also of what is only flagged.
"""

from itertools import islice
from typing import Any, NamedTuple

from pipeline.contracts.plan import Contract, EventContract

MAX_TOLD = 10
MAX_VIOLATIONS = 100
# A list may have more that violates than is looked at once, and be too short without it.
_MOST_ROUNDS = 20
_MAX_NAME = 64
# Violations that a value is not there: nothing can be taken away to mend them.
_OF_THE_WHOLE = frozenset(("required", "dependentRequired"))
_MISSING = object()


class Violation(NamedTuple):
    """One thing that was not as the contract says. `pointer` is a JSON pointer into the event, `rule` the keyword of
    JSON Schema, or `unplanned_event`, `unplanned_property`; `detail` shows no value."""

    pointer: str
    rule: str
    detail: str


class Checked(NamedTuple):
    """What came of a check. `rejected` is a reason of ingest's catalogue, or empty; it is for the first violation."""

    violations: tuple[Violation, ...] = ()
    flags: tuple[str, ...] = ()
    rejected: str = ""


FINE = Checked()


def check(contract: Contract, event: str, sections: dict[str, dict[str, Any]]) -> Checked:
    """Check an event by its name and its SECTIONS. What is stripped is taken out of them."""
    found = contract.events.get(event)
    if found is None:
        return _unplanned_event(contract, event)
    unplanned = _unplanned(found, sections)
    if unplanned:
        how = found.unplanned_properties
        if how == "reject":
            return Checked(unplanned, (), "unplanned_property")
        if how == "strip":
            for violation in unplanned:
                _, section, name = violation.pointer.split("/", 2)
                del sections[section][_unescaped(name)]
    flags = _flags("stripped" if found.unplanned_properties == "strip" else "unplanned_property", unplanned)
    if found.validator is None or found.validator.is_valid(sections):
        return Checked(unplanned, flags) if unplanned else FINE
    violations = _violations(found, sections)
    left = violations if found.on_violation == "strip" else ()
    for _ in range(_MOST_ROUNDS):
        if not _strip(sections, left):
            break
        if found.validator.is_valid(sections):
            return Checked((*unplanned, *violations), (*flags, *_flags("stripped", violations)))
        left = _violations(found, sections)
        # What is missing only because it was taken away was there, and wrong: that is what is told.
        taken = {violation.pointer for violation in violations}
        violations += tuple(each for each in left if each.pointer not in taken)
    if found.on_violation == "flag":
        return Checked((*unplanned, *violations), (*flags, *_flags("contract_violation", violations)))
    return Checked((*violations, *unplanned), (), "contract_violation")


def _unplanned_event(contract: Contract, event: str) -> Checked:
    if contract.unplanned_events == "allow":
        return FINE
    told = (Violation("/event", "unplanned_event", f"{event[:_MAX_NAME]!r} is not in the contract"),)
    if contract.unplanned_events == "reject":
        return Checked(told, (), "unplanned_event")
    return Checked(told, ("unplanned_event",))


def _unplanned(contract: EventContract, sections: dict[str, dict[str, Any]]) -> tuple[Violation, ...]:
    if contract.unplanned_properties == "allow":
        return ()
    found = []
    for section, planned in contract.planned.items():
        for name in sections[section]:
            if name not in planned:
                pointer = f"/{section}/{_escaped(name)}"
                found.append(Violation(pointer, "unplanned_property", "it is not in the contract"))
    return tuple(found)


def _violations(contract: EventContract, sections: dict[str, dict[str, Any]]) -> tuple[Violation, ...]:
    assert contract.validator is not None
    found = []
    for error in islice(contract.validator.iter_errors(sections), MAX_VIOLATIONS):
        path = list(error.instance_path)
        rule = str(error.kind.name)
        if rule == "required":
            # The pointer leads to what is missing, not to what it is missing in.
            path.append(error.kind.as_dict()["property"])
        elif rule in ("additionalProperties", "unevaluatedProperties"):
            unexpected = error.kind.as_dict().get("unexpected") or []
            found += [Violation(_pointer([*path, name]), rule, "it is not in the contract") for name in unexpected]
            continue
        found.append(Violation(_pointer(path), rule, str(error.message)))
    return tuple(found)


def _strip(sections: dict[str, dict[str, Any]], violations: tuple[Violation, ...]) -> bool:
    """Take away what violates; whether anything could be."""
    taken = False
    paths = {tuple(_steps(violation.pointer)) for violation in violations if violation.rule not in _OF_THE_WHOLE}
    # Items of a list from its end: those before keep their places.
    for path in sorted(paths, key=lambda steps: [(step.zfill(12), step) for step in steps], reverse=True):
        if len(path) < 2:
            continue
        parent: Any = sections
        for step in path[:-1]:
            parent = _inside(parent, step)
        last = path[-1]
        if isinstance(parent, dict):
            taken |= parent.pop(last, _MISSING) is not _MISSING
        elif isinstance(parent, list) and last.isdigit() and int(last) < len(parent):
            del parent[int(last)]
            taken = True
    return taken


def _inside(parent: Any, step: str) -> Any:
    if isinstance(parent, dict):
        return parent.get(step)
    if isinstance(parent, list) and step.isdigit() and int(step) < len(parent):
        return parent[int(step)]
    return None


def _flags(word: str, violations: tuple[Violation, ...]) -> tuple[str, ...]:
    return tuple(f"{word}:{violation.pointer[:_MAX_NAME]}" for violation in violations[:MAX_TOLD])


def _pointer(path: list[str | int]) -> str:
    return "".join(f"/{_escaped(str(step))}" for step in path)


def _steps(pointer: str) -> list[str]:
    return [_unescaped(step) for step in pointer.split("/")[1:]]


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _unescaped(step: str) -> str:
    return step.replace("~1", "/").replace("~0", "~")
