"""The only place where the simulation touches what it judges: how stages are made from a world."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.identifiers import Keys
from pipeline.identity import IdentityRules, IdentityStage, Namespace, Sizes
from pipeline.runtime.ports import Stage
from tests.oracle.identity import Rules
from tests.simulation.world import World


@dataclass(frozen=True)
class IdentityPlan:
    """What the identity stage needs of a generation."""

    identity: IdentityRules


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
            )
            for rule in rules.namespaces.values()
        },
        quarantine_after=rules.quarantine_after,
    )


def identity_stage(rules: Rules, partitions: int, seed: int, keys: Keys) -> Callable[[int], Stage]:
    """Makes the identity stage; how it lays out its state is drawn, because it must not matter."""
    rng = random.Random(f"sizes {seed}")
    plan = IdentityPlan(identity_rules(rules))
    sizes = rng.choice((Sizes(), Sizes(inline=1), Sizes(inline=2)))
    return lambda partition: IdentityStage(keys, lambda generation: plan, partitions, sizes=sizes)
