"""The topic `workspace`: where a workspace came from, and where it went on. Each kind of record is a key of its own."""

import msgspec
from msgspec import Struct

TOPIC = "workspace"
ORIGIN_KEY, POSITION_KEY, SUCCESSOR_KEY = b"origin", b"position", b"successor"
SECRET_KEY = b"secret"
_UNLINK = b"unlink/"
_SOURCE = b"source/"


def erasure_key(actor: bytes) -> bytes:
    """The record key of an erasure that was copied."""
    return b"erasure/" + actor


def source_key(name: str) -> bytes:
    """The record key of how far a source was pulled."""
    return _SOURCE + name.encode()


def unlink_key(decision: bytes) -> bytes:
    """The record key of an unlink or its undo that was copied; `decision` is its key in `identity-decisions`."""
    return _UNLINK + decision


def decision_key(key: bytes) -> bytes:
    """The key in the old `identity-decisions` of an unlink that was copied: what `unlink_key` was made from."""
    return key.removeprefix(_UNLINK)


class ReplayOrigin(Struct, tag_field="kind", tag="origin", omit_defaults=True):
    """This workspace is a replay of the one whose names begin with `prefix`, which has `partitions` partitions, and an
    archive at the address `archive`, if that is not empty."""

    prefix: str
    partitions: int
    begun_at: int
    archive: str = ""


class ReplayPosition(Struct, tag_field="kind", tag="position", omit_defaults=True):
    """How far a replay has come, written with what it copied, in one transaction.

    By partition of the old `events`: `positions` is the next to be copied, `clocks` the latest received before it,
    `caught_up` that of the last caught-up record. Decisions before the position `decisions` are known; of these, all
    received up to `decided` are copied. `clock` is the time the replay has come to, `told` the one last said in the new
    workspace. Counted are events `copied` (`rerouted` among them: under other identifiers), left out because they were
    `erased`, put aside as `refused`; and `decided_records`, the decisions. `starts`: the places
    of the successor, once the switch has chosen them. `handed_over`: holders were told what the old workspace had said.
    `ended`: the workspace has taken over, and is a copy no more.
    """

    positions: list[int]
    clocks: list[int]
    caught_up: list[int]
    decisions: int = 0
    decided: int = -1
    clock: int = 0
    told: int = 0
    copied: int = 0
    rerouted: int = 0
    erased: int = 0
    refused: int = 0
    decided_records: int = 0
    handed_over: bool = False
    ended: bool = False
    starts: dict[str, list[int]] = {}


class ErasureCopied(Struct, tag_field="kind", tag="erasure_copied"):
    """The replay has told this workspace that somebody was erased in the old one: up to `received`, of the identifier
    that `actor` is the keyed hash of. The key is "erasure/actor"."""

    actor: str
    received: int


class UnlinkCopied(Struct, tag_field="kind", tag="unlink_copied", omit_defaults=True):
    """The last of what was decided about unlinking a pair, or one identifier, that the replay has told this workspace.

    It stood at `offset` of the old `identity-decisions` and was `due` in the order of the copy. It was the unlink of
    `a` from `b` that was `received` then; or `a` is empty, and it was an undo. The key is "unlink/" and that of the
    old decision.
    """

    offset: int
    due: int
    a: str = ""
    b: str = ""
    received: int = 0


class Successor(Struct, tag_field="kind", tag="successor", omit_defaults=True):
    """This workspace goes on in the one whose names begin with `prefix`: nothing is ingested here any more.

    `starts`: of each topic, by partition, where a subscriber that has read this workspace's topic to its end goes on
    in the new one's. Empty while the switch is under way.
    """

    prefix: str
    at: int
    starts: dict[str, list[int]] = {}


class SourcePosition(Struct, tag_field="kind", tag="source_position"):
    """How far a source was pulled, written with what was pulled, in one transaction. The key is "source/" and its
    name."""

    position: str


class SecretCheck(Struct, tag_field="kind", tag="secret_check"):
    """By what the secret is known that this workspace was made with: a hash of it. The key is "secret"."""

    check: str


WorkspaceRecord = (
    ReplayOrigin | ReplayPosition | ErasureCopied | UnlinkCopied | Successor | SourcePosition | SecretCheck
)

encode_workspace_record = msgspec.json.Encoder().encode
decode_workspace_record = msgspec.json.Decoder(WorkspaceRecord).decode
