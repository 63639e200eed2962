"""What each role may do on a Kafka that asks who is there: no more than it needs, as access control lists have it.

The lists are data, so that what `headwater topics acls` prints is what the tests run every role under.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from pipeline.settings import Settings
from pipeline.topology import DELIVERIES, IDENTITY, INGEST, TOPICS, UNIFY, Role

Resource = Literal["topic", "group", "transactional-id"]
Operation = Literal["Read", "Write", "Describe", "Delete", "Create", "DescribeConfigs", "AlterConfigs"]

# Beside the outputs of its transactions.
_ALSO_WRITES: dict[str, tuple[str, ...]] = {INGEST.name: ("keys", "suppressions")}
_DEFINITIONS = "definitions"
_API_READS = (
    "profiles",
    "identities",
    "segment-members",
    "segment-changes",
    "profile-changes",
    "account-alerts",
    "events",
    "keys",
    "suppressions",
    "workspace",
)
_OPERATIONS_READ = ("dead-letters", "unify-changelog", "identity-decisions")
_OPENS = {"ingest": ("keys", "suppressions"), "unify": ("keys", "suppressions")}
_PRIVACY_WRITES = (
    "keys",
    "suppressions",
    "privacy-requests",
    "privacy-receipts",
    "identity-edges",
    "links",
    "unify-changelog",
    "identity-changelog",
    "identity-decisions",
    "profiles",
    "identities",
    "segment-members",
)


class Right(NamedTuple):
    """One thing a role may do. `prefixed`: to everything whose name begins so."""

    role: str
    resource: Resource
    name: str
    operations: tuple[Operation, ...]
    prefixed: bool = False


def rights(settings: Settings, destinations: Sequence[str] = ()) -> list[Right]:
    """The rights of every role of the workspace, by role."""
    found: list[Right] = []
    for stage in (INGEST._replace(inputs=settings.sources, tolerant=settings.sources), IDENTITY, UNIFY):
        found += _stage(settings, stage, destinations)
    found += _deliver(settings, destinations)
    found += [
        # An export has what is kept of a person everywhere.
        *_reads(settings, "privacy", [*(topic.name for topic in TOPICS if topic.name != "raw"), *settings.sources]),
        Right("privacy", "topic", settings.topic(DELIVERIES.name), ("Read", "Describe"), prefixed=True),
        Right("privacy", "group", f"{settings.prefix}export-reader", ("Describe",)),
        # Who writes keys and suppressions looks at what is there in the same way.
        *(Right(each, "group", f"{settings.prefix}privacy", ("Describe",)) for each in ("privacy", "ingest")),
        *_writes(settings, "privacy", (*_PRIVACY_WRITES, settings.sources[0])),
        Right("privacy", "topic", settings.prefix, ("Describe", "DescribeConfigs", "AlterConfigs"), prefixed=True),
        # A receipt says by when the sources have let go, those outside of the workspace too.
        *(
            Right("privacy", "topic", name, ("DescribeConfigs",))
            for name in map(settings.topic, settings.sources)
            if not name.startswith(settings.prefix)
        ),
        Right("privacy", "transactional-id", f"{settings.prefix}privacy", ("Write", "Describe")),
        Right("ingest", "transactional-id", f"{settings.prefix}privacy", ("Write", "Describe")),
    ]
    found += [
        # Whose turn it is says the workspace: pipeline/replay/turns.py.
        *_reads(settings, "ingest", ("workspace",)),
        # Which secret it was made with: pipeline/secret_check.py.
        *_reads(settings, "identity", ("workspace",)),
        *_reads(settings, "unify", ("workspace",)),
        *_reads(settings, "collector", ("workspace",)),
        *_reads(settings, "deliver", ("workspace",)),
        *_reads(settings, "source", ("workspace", _DEFINITIONS)),
        *_writes(settings, "source", ("workspace", *settings.sources)),
        Right("source", "transactional-id", f"{settings.prefix}source-", ("Write", "Describe"), prefixed=True),
        Right("source", "group", f"{settings.prefix}source-", ("Read", "Describe"), prefixed=True),
    ]
    archived = ("events", "segment-changes", "profile-changes")
    found += _reads(settings, "archive", (*archived, "privacy-progress", _DEFINITIONS, "keys"))
    found += _reads(settings, "api", (*_API_READS, _DEFINITIONS, "privacy-receipts", *_OPERATIONS_READ))
    # How far the roles are: their groups' positions, and the ends of what they read.
    found += [
        *_reads(settings, "api", settings.sources),
        Right("api", "topic", settings.topic(DELIVERIES.name), ("Read", "Describe"), prefixed=True),
        Right("api", "topic", settings.prefix, ("Describe", "DescribeConfigs"), prefixed=True),
        Right("api", "group", settings.prefix, ("Describe",), prefixed=True),
    ]
    found += [
        *_writes(settings, "collector", [settings.sources[0]]),
        *_reads(settings, "operator", [*(topic.name for topic in TOPICS if topic.name != "raw"), *settings.sources]),
        # `explain` and `privacy export` read what was sent; `resync` and `dead-letters replay` send it again.
        Right("operator", "topic", settings.topic(DELIVERIES.name), ("Read", "Write", "Describe"), prefixed=True),
        *_writes(settings, "operator", ("definitions", "events", "identity-edges", *settings.sources)),
        *_writes(settings, "operator", ("privacy-requests", "audit", "workspace")),
        Right("operator", "topic", settings.prefix, ("Create", "Describe", "DescribeConfigs"), prefixed=True),
        Right("operator", "transactional-id", f"{settings.prefix}apply", ("Write", "Describe")),
        Right("operator", "group", settings.prefix, ("Read", "Describe"), prefixed=True),
    ]
    return _together(found)


def _stage(settings: Settings, stage: Role, destinations: Sequence[str]) -> Iterator[Right]:
    name = stage.name
    outputs = [topic for topic in stage.outputs if topic != DELIVERIES.name]
    if DELIVERIES.name in stage.outputs:
        outputs += [DELIVERIES.name + each for each in destinations]
    # It also reads what it writes: a lost transaction may hang there, and whose it is shows in what it left.
    yield from _reads(settings, name, (*stage.inputs, _DEFINITIONS, *_OPENS.get(name, ()), *outputs))
    yield from _writes(settings, name, (*outputs, *_ALSO_WRITES.get(name, ())))
    if stage.changelog is not None:
        yield from _reads(settings, name, (stage.changelog,))
        yield from _writes(settings, name, (stage.changelog,))
        # How long its tombstones are kept says when a store has been away for too long.
        yield Right(name, "topic", settings.topic(stage.changelog), ("DescribeConfigs",))
    for trimmed in stage.trimmed:
        yield Right(name, "topic", settings.topic(trimmed), ("Delete",))
    yield Right(name, "group", f"{settings.prefix}{name}", ("Read", "Describe"))
    yield Right(name, "transactional-id", f"{settings.prefix}{name}-", ("Write", "Describe"), prefixed=True)


def _deliver(settings: Settings, destinations: Sequence[str]) -> Iterator[Right]:
    yield from _reads(
        settings, "deliver", (_DEFINITIONS, "privacy-progress", *(DELIVERIES.name + each for each in destinations))
    )
    yield from _writes(settings, "deliver", ("dead-letters", "privacy-progress", settings.sources[0]))
    if settings.sources_prefix not in (None, settings.prefix):
        # What waits in the workspace that it took over from is handed over first: pipeline/replay/former.py.
        former = settings.model_copy(update={"prefix": settings.sources_prefix, "sources_prefix": None})
        yield from _reads(former, "deliver", (_DEFINITIONS, *(DELIVERIES.name + each for each in destinations)))
        for each in destinations:
            for group in (f"deliver-{each}", f"deliver-{each}-tail"):
                yield Right("deliver", "group", f"{former.prefix}{group}", ("Read", "Describe"))
    for each in destinations:
        yield Right("deliver", "group", f"{settings.prefix}deliver-{each}", ("Read", "Describe"))


def _reads(settings: Settings, role: str, topics: Iterable[str]) -> Iterator[Right]:
    for topic in topics:
        yield Right(role, "topic", settings.topic(topic), ("Read", "Describe"))
    # Whoever reads on their own account joins no group, but the client asks for the coordinator of one all the same.
    for group in ("reader", f"{role}-reader"):
        yield Right(role, "group", f"{settings.prefix}{group}", ("Describe",))


def _writes(settings: Settings, role: str, topics: Iterable[str]) -> Iterator[Right]:
    for topic in topics:
        yield Right(role, "topic", settings.topic(topic), ("Write", "Describe"))


def _together(found: Iterable[Right]) -> list[Right]:
    """The rights of a role on one thing, in one line."""
    operations: dict[tuple[str, Resource, str, bool], list[Operation]] = {}
    for right in found:
        known = operations.setdefault((right.role, right.resource, right.name, right.prefixed), [])
        known += [one for one in right.operations if one not in known]
    return [
        Right(role, resource, name, tuple(given), prefixed)
        for (role, resource, name, prefixed), given in operations.items()
    ]


def as_command(right: Right, principal: str, bootstrap_servers: str) -> str:
    """The call of Kafka's own tool that grants a right."""
    operations = " ".join(f"--operation {one}" for one in right.operations)
    pattern = " --resource-pattern-type prefixed" if right.prefixed else ""
    return (
        f"kafka-acls.sh --bootstrap-server {bootstrap_servers} --add --allow-principal {principal} "
        f"{operations} --{right.resource} '{right.name}'{pattern}"
    )
