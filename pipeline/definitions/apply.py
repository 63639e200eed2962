"""From what is in force and what somebody wrote to the next generation: pure planning.

- A body that did not change keeps its version. A changed one gets the next version that was never used, also when it
  returns to an earlier text: an edit and an edit back are two changes.
- A definition belongs to its owner, `file` or `ui`. Who is not the owner may not change, remove or pause it, unless
  told to take it over; writing the very same body is no change.
- What is not mentioned stays, unless `prune` is given: then what is the owner's and not mentioned is removed.
- The leaves of the rules carry the generation since which they have been there without a break.
"""

import difflib
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.definitions.catalog import Catalog
from pipeline.definitions.export import as_yaml
from pipeline.definitions.loader import Written
from pipeline.errors import DefinitionError, LookupFailed
from pipeline.profile import same_value
from pipeline.records import Definition, Generation

What = Literal["added", "changed", "taken over", "removed", "paused", "resumed"]
LeavesOf = Callable[[Catalog, Generation], Iterable[str]]
"""Gives the ids of all leaves of a generation's rules; raises DefinitionError when they do not fit together."""


class OwnerError(DefinitionError):
    """The definition belongs to somebody else."""


class OvertakenError(DefinitionError):
    """Another version of the definition is in force than the one that somebody started from."""


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between the generation in force and the next. `text` shows it, line by line, as YAML."""

    what: What
    key: str
    before: int | None
    after: int | None
    text: str = ""


@dataclass(frozen=True, slots=True)
class ApplyPlan:
    """What an apply will write: new versions, and the next generation unless nothing in force changes."""

    changes: tuple[Change, ...]
    definitions: tuple[Definition, ...]
    generation: Generation | None
    identity_changed: bool
    waits_for: tuple[str, ...] = ()
    """What destinations and alerts name and nobody has defined, in words: it may come later, or be a slip."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not self.definitions and self.generation is None


def plan_apply(
    catalog: Catalog,
    written: Sequence[Written] = (),
    *,
    leaves_of: LeavesOf,
    owner: str = "file",
    take_over: bool = False,
    prune: bool = False,
    remove: Sequence[str] = (),
    pause: Sequence[str] = (),
    resume: Sequence[str] = (),
    over: int | None = None,
    applied_at: int,
    applied_by: str = "",
) -> ApplyPlan:
    """Plan the next generation. `remove`, `pause` and `resume` name definitions as "kind/name". With `over` each that
    is written takes the place of that version, or of none if it is 0.

    Raises OwnerError, OvertakenError, LookupFailed for a name that is not in force, and DefinitionError when the whole
    does not fit together (a reference to nothing, a cycle).
    """
    current = catalog.latest
    members, paused = dict(current.members), set(current.paused)
    changes: list[Change] = []
    definitions: list[Definition] = []

    for each in written:
        present = catalog.in_force(current, each.key)
        # Not by ==, to which `equals: 1` and `equals: true` are one.
        unchanged = present is not None and same_value(present.body, each.body)
        if present is not None and present.owner != owner and not take_over and not unchanged:
            raise _owned(present)
        if over is not None and not unchanged and over != (present.version if present is not None else 0):
            raise _overtaken(each, present, over)
        if present is not None and unchanged:
            if present.owner != owner and take_over:
                # Only whose it is changes, not what is in force: the same version, written again.
                definitions.append(_with_owner(present, owner))
                changes.append(Change("taken over", each.key, present.version, present.version))
            continue
        version = catalog.highest_version(each.kind, each.name) + 1
        definitions.append(
            Definition(
                kind=each.kind,
                name=each.name,
                version=version,
                body=each.body,
                owner=owner,
                applied_at=applied_at,
                applied_by=applied_by,
            )
        )
        members[each.key] = version
        before = present.version if present is not None else None
        text = _difference(present.body if present is not None else None, each.body)
        changes.append(Change("changed" if present is not None else "added", each.key, before, version, text))

    gone = list(remove)
    if prune:
        mentioned = {each.key for each in written}
        own = (key for key in current.members if key not in mentioned)
        gone += [key for key in own if (found := catalog.in_force(current, key)) is not None and found.owner == owner]
    for key in dict.fromkeys(gone):
        present = _required(catalog, current, key, owner, take_over)
        del members[key]
        paused.discard(key)
        changes.append(Change("removed", key, present.version, None, _difference(present.body, None)))
    for key in pause:
        present = _required(catalog, current, key, owner, take_over)
        if key not in paused and key in members:
            paused.add(key)
            changes.append(Change("paused", key, present.version, members[key]))
    for key in resume:
        present = _required(catalog, current, key, owner, take_over)
        if key in paused:
            paused.discard(key)
            changes.append(Change("resumed", key, present.version, members.get(key)))

    waits_for = tuple(_waits_for(written, members))
    if members == current.members and paused == set(current.paused):
        return ApplyPlan(tuple(changes), tuple(definitions), None, False, waits_for)
    new = {each.key for each in written}
    staying = [found for key in members if key not in new and (found := catalog.in_force(current, key)) is not None]
    waits_for += tuple(_waits_for(staying, members, dict.fromkeys(gone)))
    generation = Generation(
        number=current.number + 1,
        members=dict(sorted(members.items())),
        paused=sorted(paused),
        applied_at=applied_at,
    )
    leaves = sorted(leaves_of(catalog.with_definitions(definitions), generation))
    generation.leaves = {leaf: current.leaves.get(leaf, generation.number) for leaf in leaves}
    identity = [key for key in (*members, *current.members) if key.startswith("identity/")]
    identity_changed = any(
        members.get(key) != current.members.get(key) or (key in paused) != (key in current.paused) for key in identity
    )
    return ApplyPlan(tuple(changes), tuple(definitions), generation, identity_changed, waits_for)


def _waits_for(
    asking: Iterable[Written | Definition], members: Mapping[str, int], gone: Container[str] | None = None
) -> Iterator[str]:
    """What these name and nobody has defined, in words; only of what is `gone`, if that is given."""
    for each in asking:
        named: dict[str, Any] = {}
        if each.kind == "destination":
            named = {"segment": each.body.get("segments"), "alert": each.body.get("alerts")}
        elif each.kind == "alert":
            named = {"segment": [each.body["enters"]]}
        for kind, names in named.items():
            known = [key.partition("/")[2] for key in members if key.startswith(f"{kind}/")]
            for name in names if isinstance(names, list) else ():
                if name not in known and (gone is None or f"{kind}/{name}" in gone):
                    near = difflib.get_close_matches(name, known, 1)
                    advice = f" Did you mean {near[0]}?" if near else ""
                    yield f"The {each.kind} {each.name} hears nothing yet by {name}: there is no such {kind}.{advice}"


def _required(catalog: Catalog, current: Generation, key: str, owner: str, take_over: bool) -> Definition:
    present = catalog.in_force(current, key)
    if "/" not in key:
        raise LookupFailed(f"{key[:100]!r} names no definition.", "", "write KIND/NAME, for example segment/vips")
    if present is None:
        kind = key.partition("/")[0]
        near = difflib.get_close_matches(key, current.members, 1)
        known = ", ".join(each.partition("/")[2] for each in current.members if each.startswith(f"{kind}/"))
        advice = f"did you mean {near[0].partition('/')[2]}?" if near else f"there are: {known or 'none'}"
        raise LookupFailed(f"There is no {kind} {key.partition('/')[2]}.", key, advice)
    if present.owner != owner and not take_over:
        raise _owned(present)
    return present


def _owned(present: Definition) -> OwnerError:
    where = "the user interface" if present.owner == "ui" else "files"
    return OwnerError(
        f"The {present.kind} {present.name} (version {present.version}) was last written by {where}.",
        f"{present.kind}/{present.name}",
        "see what it says with `headwater export`; to write over it, take it over: `--take-over` of the command, "
        "`take_over` of the API, “Take it over” of the pages",
    )


def _overtaken(written: Written, present: Definition | None, over: int) -> OvertakenError:
    if present is None:
        what = f"The {written.kind} {written.name} is not in force any more."
    elif over:
        by = f", by {present.applied_by}" if present.applied_by else ""
        what = f"The {written.kind} {written.name} was changed meanwhile: version {present.version} is in force{by}."
    else:
        what = f"There is a {written.kind} {written.name} already: version {present.version} is in force."
    return OvertakenError(
        what, written.key, "look at what is there; then choose another name, or write over that version"
    )


def _with_owner(present: Definition, owner: str) -> Definition:
    return Definition(
        kind=present.kind,
        name=present.name,
        version=present.version,
        body=present.body,
        owner=owner,
        applied_at=present.applied_at,
        applied_by=present.applied_by,
    )


def _difference(before: dict[str, Any] | None, after: dict[str, Any] | None) -> str:
    old = as_yaml(before).splitlines() if before is not None else []
    new = as_yaml(after).splitlines() if after is not None else []
    return "\n".join(list(difflib.unified_diff(old, new, n=2, lineterm=""))[2:])
