"""What is known of a person: fragments, their join, and the document the world sees."""

from pipeline.profile.document import (
    SHOWN_IDENTIFIERS,
    apply_change,
    build,
    contents,
    difference,
    shown_consents,
    shown_totals,
    shown_traits,
)
from pipeline.profile.fragment import (
    RECENT_EVENTS,
    consents_anew,
    decode_fragment,
    encode_fragment,
    events_in,
    fold,
    forget_recent,
    is_empty,
    join,
    join_all,
    pieces,
    tie,
    write,
)
from pipeline.profile.keeping import kept_until, take_out, to_go
from pipeline.profile.proofs import Proof, proof_of
from pipeline.profile.state import Fragment
from pipeline.profile.values import same_value

__all__ = [
    "RECENT_EVENTS",
    "SHOWN_IDENTIFIERS",
    "Fragment",
    "Proof",
    "apply_change",
    "build",
    "consents_anew",
    "contents",
    "decode_fragment",
    "difference",
    "encode_fragment",
    "events_in",
    "fold",
    "forget_recent",
    "is_empty",
    "join",
    "join_all",
    "kept_until",
    "pieces",
    "proof_of",
    "same_value",
    "shown_consents",
    "shown_totals",
    "shown_traits",
    "take_out",
    "tie",
    "to_go",
    "write",
]
