"""The only place where the simulation touches what it judges: how stages are made from a world."""

import importlib
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from pipeline.accounts import AccountRules as RoomRules
from pipeline.activation import ActivationPlan
from pipeline.definitions.segments import SegmentDefinition
from pipeline.definitions.traits import TraitDefinition
from pipeline.identifiers import Keys
from pipeline.identity import IdentityRules, IdentityStage, Namespace, Sizes
from pipeline.plans import GenerationPlan
from pipeline.runtime.ports import Stage
from pipeline.segments import NO_SEGMENTS, NOTHING_SAID, Keeps, SegmentsPlan, compile_plan
from pipeline.unify import UnifyStage, forms
from pipeline.unify.actor import META_KEY
from pipeline.unify.writer import Writer
from tests.oracle.accounts import AccountRules
from tests.oracle.identity import Rules
from tests.simulation.accounts import room_rules
from tests.simulation.world import World

NEVER_DAYS = 36_500
NO_ACCOUNTS = RoomRules(groups=False)


def plan_of(identity: IdentityRules, segments: SegmentsPlan, accounts: AccountRules | None = None) -> GenerationPlan:
    """The plan of the only generation of a world."""
    of_accounts = NO_ACCOUNTS if accounts is None else room_rules(accounts)
    return GenerationPlan(0, identity, segments, ActivationPlan(), accounts=of_accounts)


def compile_segments(definitions: Sequence[Mapping[str, Any]], keeps: Keeps = NOTHING_SAID) -> SegmentsPlan:
    """The plan of these definitions, read and validated as those of a user are, and of what may be kept."""
    if not definitions:
        return NO_SEGMENTS
    return compile_plan(
        [SegmentDefinition.model_validate(one).compiled() for one in definitions if "segment" in one],
        [TraitDefinition.model_validate(one).compiled() for one in definitions if "computed" in one],
        keeps=keeps,
    )


# How state is laid out and work is cut up: it must not matter, so every world draws its own.
_LAYOUT: tuple[tuple[str, str, Any], ...] = (
    ("pipeline.unify.dedup", "INLINE", 2),
    ("pipeline.unify.dedup", "PAGE", 3),
    ("pipeline.unify.dedup", "_MOST_INDEXED", 1),
    ("pipeline.unify.evidence", "INLINE", 1),
    ("pipeline.unify.task", "GROUP_INLINE", 1),
    ("pipeline.unify.transfer", "PIECE_BYTES", 150),
    ("pipeline.runtime.overlay", "AWAKE", 1),
    ("pipeline.unify.stage", "PROFILES_PER_TICK", 1),
    ("pipeline.unify.account", "TOLD_AT_ONCE", 1),
    ("pipeline.unify.account_hand", "_PEOPLE_AT_HAND", 1),
    ("pipeline.unify.belonging", "PIECE_BYTES", 150),
    ("pipeline.unify.together", "_MOST_BELOW", 1),
    ("pipeline.unify.account", "ACCOUNTS_PER_SWEEP", 1),
    # Not sweeps alone: whatever is assigned or absorbed is long work, which rests, and holds up what stands behind it.
    ("pipeline.unify.stage", "_SWEEP", b'{"kind":"a'),
)
_ORDINARY = {(module, name): getattr(importlib.import_module(module), name) for module, name, _ in _LAYOUT}


def lay_out(seed: int) -> None:
    """Draw a layout: each bound is what it is, or so small that what lies beyond it happens all the time."""
    rng = random.Random(f"layout {seed}")
    for module, name, small in _LAYOUT:
        setattr(importlib.import_module(module), name, small if rng.random() < 0.3 else _ORDINARY[module, name])


def lay_out_as_usual() -> None:
    """What comes after a simulation in the same process has the layout that is shipped."""
    for (module, name), usual in _ORDINARY.items():
        setattr(importlib.import_module(module), name, usual)


def said_by_records(store: Mapping[bytes, tuple[int, bytes]]) -> dict[bytes, tuple[int, bytes]]:
    """What a unify or identity task keeps, but for the one thing that no record says: that it was woken."""
    kept = dict(store)
    if META_KEY in kept:
        wake, data = kept[META_KEY]
        meta = forms.decode(META_KEY, data)
        kept[META_KEY] = wake, forms.encode(msgspec.structs.replace(meta, tick=0), Writer())
    return kept


def unify_stage(world: World, keys: Keys) -> Callable[[int], Stage]:
    """Makes the unify stage of a partition."""
    lay_out(world.seed)
    plan = plan_of(identity_rules(world.rules), compile_segments(world.segments), world.accounts)
    return lambda partition: UnifyStage(partition, keys, lambda generation: plan, NEVER_DAYS)


def identity_rules(rules: Rules) -> IdentityRules:
    """The rooms' rules for the oracle's."""
    return IdentityRules(
        {
            rule.name: Namespace(
                rule.name,
                rule.priority,
                unique=rule.limit == 1,
                limit=rule.limit,
                on_conflict=rule.on_conflict,
                quarantine_after=rule.quarantine_after,
                person=rule.person,
            )
            for rule in rules.namespaces.values()
        },
        quarantine_after=rules.quarantine_after,
    )


def identity_stage(rules: Rules, partitions: int, seed: int, keys: Keys) -> Callable[[int], Stage]:
    """Makes the identity stage; how it lays out its state is drawn, because it must not matter."""
    rng = random.Random(f"sizes {seed}")
    plan = plan_of(identity_rules(rules), NO_SEGMENTS)
    sizes = rng.choice((Sizes(), Sizes(inline=1), Sizes(inline=2)))
    return lambda partition: IdentityStage(keys, lambda generation: plan, partitions, sizes=sizes)
