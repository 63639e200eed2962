"""`identity-edges` and `identity-decisions`: evidence of who is who, and what people decided about it."""

from msgspec import Struct


class Evidence(Struct, tag_field="kind", tag="evidence", omit_defaults=True):
    """Two identifiers stood in one event. `a` < `b` as texts; `route` is the actor that saw it."""

    a: str
    b: str
    first: int
    last_received: int
    route: str


class Unlink(Struct, tag_field="kind", tag="unlink", omit_defaults=True):
    """Take back the edge a-b, or every edge of `a` if `b` is empty: it counts only if last received after `received`;
    with `forever`, never again."""

    a: str
    received: int
    b: str = ""
    forever: bool = False
    actor: str = ""


class Relink(Struct, tag_field="kind", tag="relink", omit_defaults=True):
    """Undo an unlink of a-b (of all edges of `a` if `b` is empty): the evidence counts as if there had been none."""

    a: str
    received: int
    b: str = ""
    actor: str = ""


class Release(Struct, tag_field="kind", tag="release", omit_defaults=True):
    """Release an identifier from quarantine; its edges count again, up to a threshold counted anew from here."""

    identifier: str
    received: int
    actor: str = ""


class EraseRequest(Struct, tag_field="kind", tag="erase_request", omit_defaults=True):
    """Forget the person who holds `identifier`. With `keep_out` nothing brings them back but a consent anew."""

    identifier: str
    received: int
    request_id: str = ""
    keep_out: bool = False


class Readmitted(Struct, tag_field="kind", tag="readmitted", omit_defaults=True):
    """Somebody who was erased and kept out has consented anew, in an event at `time` that names `identifier`."""

    identifier: str
    time: int
    received: int


class Erased(Struct, tag_field="kind", tag="erased", omit_defaults=True):
    """Somebody was forgotten: `actor` is the keyed hash of one of their identifiers, `epoch` that of the erasure, of
    `members` identifiers. What was received up to `received` is gone, and must not come back from a replay. `keep_out`:
    nothing brings them back but a consent anew, in a replay either."""

    actor: str
    received: int
    epoch: int
    members: int = 1
    request_id: str = ""
    keep_out: bool = False


class RulesChanged(Struct, tag_field="kind", tag="rules", omit_defaults=True):
    """From here on identity is resolved under the rules of `generation`."""

    generation: int
    received: int


class BackfillDone(Struct, tag_field="kind", tag="backfill_done", omit_defaults=True):
    """Partition `partition` has folded its history into `generation`."""

    generation: int
    partition: int
    received: int


class ResolveOn(Struct, tag_field="kind", tag="resolve_on", omit_defaults=True):
    """Go on resolving under the rules of `generation`, from the part `bucket` of the identifiers on. The identity stage
    writes it to itself, so that a change of rules is paced and still a function of the log."""

    generation: int
    received: int
    bucket: int = 0


EdgesRecord = Evidence | Unlink | Relink | Release | EraseRequest | Readmitted | RulesChanged | BackfillDone | ResolveOn
