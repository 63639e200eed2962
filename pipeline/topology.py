"""Which topic leads to which room, with which key: the table of DESIGN section 2 as data."""

from typing import Literal, NamedTuple

DAY_MS = 86_400_000


class Topic(NamedTuple):
    """A topic by its logical name. `partitions` None means the workspace's partition count, and of an `output`, which
    is for others to read, the count of outputs."""

    name: str
    key: str
    cleanup: Literal["delete", "compact"]
    partitions: int | None = None
    retention_ms: int = -1
    output: bool = False


TOPICS: tuple[Topic, ...] = (
    Topic("raw", "the producer's choice", "delete", None, 7 * DAY_MS),
    Topic("events", "keyed hash of the routing identifier", "delete"),
    Topic("dead-letters", "as the source record", "delete", None, 90 * DAY_MS),
    Topic("identity-edges", "none: one partition", "delete", 1),
    Topic("identity-decisions", "what was decided", "compact", 1),
    Topic("identity-conflicts", "identifier", "delete", None, 90 * DAY_MS),
    Topic("links", "keyed hash of the identifier", "delete"),
    Topic("unify-changelog", "state key", "compact"),
    Topic("identity-changelog", "state key", "compact", 1),
    Topic("profiles", "profile_id", "compact", output=True),
    Topic("identities", "identifier, or retired profile_id", "compact", output=True),
    Topic("profile-changes", "profile_id", "delete", None, 30 * DAY_MS, output=True),
    Topic("segment-changes", "profile_id", "delete", None, 30 * DAY_MS, output=True),
    Topic("segment-members", "segment/profile_id", "compact", output=True),
    Topic("account-alerts", "profile_id", "delete", None, 90 * DAY_MS, output=True),
    Topic("definitions", "kind/name/version", "compact", 1),
    Topic("workspace", "origin, position, successor; erasures and unlinks copied; a check of the secret", "compact", 1),
    Topic("keys", "leaf", "compact", 1),
    Topic("suppressions", "keyed hash of an identifier", "compact", 1),
    Topic("privacy-requests", "request id", "delete", 1, DAY_MS),
    Topic("privacy-receipts", "request id", "compact", 1),
    Topic("privacy-progress", "request id", "delete", 1, 30 * DAY_MS),
    Topic("audit", "none", "delete", 1, 400 * DAY_MS),
)
DELIVERIES = Topic("deliveries.", "profile_id", "delete", None, 7 * DAY_MS)


class Role(NamedTuple):
    """A stage as the runtime runs it: its input topics (co-partitioned when stateful) and its changelog.

    A record of a `tolerant` input that makes the stage raise becomes a dead letter; of any other it stops the worker,
    because we wrote it ourselves. Records of a `trimmed` input are deleted once they are committed. Its stages may ask
    for the past of the input `history`, and say of records of the input `patient` that they are long work (`CanWait`).
    A role that is `in_time_order` takes what it reads in the order in which the broker took it in, across partitions.
    `outputs` are the topics its transactions write, the changelog aside; a name that ends in a dot stands for all that
    begin with it.
    """

    name: str
    inputs: tuple[str, ...]
    changelog: str | None
    tolerant: tuple[str, ...] = ()
    trimmed: tuple[str, ...] = ()
    history: str | None = None
    outputs: tuple[str, ...] = ()
    patient: str | None = None
    in_time_order: bool = False


INGEST = Role("ingest", ("raw",), None, tolerant=("raw",), outputs=("events", "dead-letters"), in_time_order=True)
IDENTITY = Role(
    "identity",
    ("identity-edges",),
    "identity-changelog",
    trimmed=("identity-edges",),
    outputs=("links", "identity-edges", "identity-conflicts", "identity-decisions", "events", "dead-letters"),
)
UNIFY = Role(
    "unify",
    ("events", "links"),
    "unify-changelog",
    tolerant=("events",),
    trimmed=("links",),
    history="events",
    outputs=(
        "links",
        "identity-edges",
        "profiles",
        "identities",
        "segment-members",
        "profile-changes",
        "segment-changes",
        "account-alerts",
        "privacy-progress",
        "dead-letters",
        DELIVERIES.name,
    ),
    patient="links",
)
