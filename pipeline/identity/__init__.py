"""Who is who: the identity rules, and the one stage that decides."""

from pipeline.identity.normalise import JUNK_REASONS, Junk, clean_id
from pipeline.identity.rules import (
    BUILT_IN,
    IdentityRules,
    Namespace,
    builtin_rules,
    compile_pattern,
    is_namespace,
    undeclared_priority,
)

__all__ = [
    "BUILT_IN",
    "JUNK_REASONS",
    "IdentityRules",
    "Junk",
    "Namespace",
    "builtin_rules",
    "clean_id",
    "compile_pattern",
    "is_namespace",
    "undeclared_priority",
]
