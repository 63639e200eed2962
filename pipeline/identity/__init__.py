"""Who is who: the identity rules, and the one stage that decides."""

from pipeline.identity.normalise import JUNK_REASONS, Junk, clean_id
from pipeline.identity.resolution import Bounds, Link, Refusal, Resolution, resolve
from pipeline.identity.rules import (
    BUILT_IN,
    STRICT,
    IdentityRules,
    Namespace,
    builtin_rules,
    compile_pattern,
    is_namespace,
    undeclared_priority,
)
from pipeline.identity.stage import IdentityStage, Sizes
from pipeline.identity.turn import Counters

__all__ = [
    "BUILT_IN",
    "JUNK_REASONS",
    "STRICT",
    "Bounds",
    "Counters",
    "IdentityRules",
    "IdentityStage",
    "Junk",
    "Link",
    "Namespace",
    "Refusal",
    "Resolution",
    "Sizes",
    "builtin_rules",
    "clean_id",
    "compile_pattern",
    "is_namespace",
    "resolve",
    "undeclared_priority",
]
