"""Who is who: the identity rules, and the one stage that decides."""

from pipeline.identity.normalise import JUNK_REASONS, Junk, clean_id
from pipeline.identity.rules import IdentityRules, Namespace, builtin_rules

__all__ = ["JUNK_REASONS", "IdentityRules", "Junk", "Namespace", "builtin_rules", "clean_id"]
