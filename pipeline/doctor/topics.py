"""The brokers and the topics of the workspace: there, whole, alike, copied, and kept for long enough."""

from collections.abc import Iterator

from pipeline.admin import alike, compare_topics
from pipeline.doctor.finding import Finding, SetUp, some
from pipeline.topology import DELIVERIES, UNIFY

_SLOW_ANSWER_MS = 500
_OFFSETS_KEPT_MINUTES = 24 * 60
_TRANSACTION_MS = 10_000


def destinations(setup: SetUp) -> list[str]:
    """The destinations that have a topic."""
    begin = setup.settings.topic(DELIVERIES.name)
    return sorted(name.removeprefix(begin) for name in setup.facts.cluster().topics if name.startswith(begin))


def broker(setup: SetUp) -> Iterator[Finding]:
    """Whether it answers, how soon, and whether every partition has a leader."""
    settings, cluster = setup.settings, setup.facts.cluster()
    brokers = len(cluster.brokers)
    detail = (
        f"{settings.bootstrap_servers}: {brokers} broker{'s' if brokers > 1 else ''}, answers in {cluster.again_ms:.0f}"
        f" ms ({cluster.first_ms:.0f} ms with connecting)"
    )
    leaderless = sorted(
        f"{name}/{number}"
        for name, partitions in cluster.topics.items()
        if name.startswith(settings.prefix)
        for number, partition in enumerate(partitions)
        if partition.leader < 0
    )
    if leaderless:
        what = f"{detail}; partitions without a leader: {some(leaderless)}"
        yield Finding("Kafka", "wrong", what, "bring the missing brokers back")
    elif cluster.again_ms > _SLOW_ANSWER_MS:
        advice = "every transaction waits this long several times: move nearer"
        yield Finding("Kafka", "warning", detail, advice)
    else:
        yield Finding("Kafka", "good", detail)


def broker_settings(setup: SetUp) -> Iterator[Finding]:
    """What the brokers must allow. Not everybody may see it: then nothing is said."""
    config = setup.facts.broker_config()
    kept = int(config.get("offsets.retention.minutes", _OFFSETS_KEPT_MINUTES))
    if kept < _OFFSETS_KEPT_MINUTES:
        detail = f"forgets where a group stood {kept} minutes after it was left (offsets.retention.minutes)"
        advice = "let it be a week: after a longer downtime ingest would not know where to go on"
        yield Finding("broker settings", "warning", detail, advice)
    longest_ms = int(config.get("transaction.max.timeout.ms", _TRANSACTION_MS))
    if longest_ms < _TRANSACTION_MS:
        detail = f"allows transactions of {longest_ms} ms only (transaction.max.timeout.ms)"
        yield Finding("broker settings", "wrong", detail, f"allow {_TRANSACTION_MS} ms, or no worker can start")


def topics(setup: SetUp) -> Iterator[Finding]:
    """Whether all are there, with the partitions, the cleanup and the retention that they need."""
    settings, existing = setup.settings, setup.facts.cluster().counts()
    differences = compare_topics(settings, destinations(setup), existing, setup.facts.configs)
    for (what, what_to_do, fatal), names in alike(differences).items():
        yield Finding("topics", "wrong" if fatal else "warning", f"{what}: {some(names)}", what_to_do)
    if not differences:
        count = sum(name.startswith(settings.prefix) for name in existing)
        yield Finding("topics", "good", f"{count} under {settings.prefix!r}, as they must be")


def partitions(setup: SetUp) -> Iterator[Finding]:
    """Whether what belongs together has as many of each."""
    existing = setup.facts.cluster().counts()
    together = [setup.settings.topic(name) for name in (*UNIFY.inputs, str(UNIFY.changelog))]
    counts = {name: existing[name] for name in together if name in existing}
    if len(set(counts.values())) > 1:
        shown = ", ".join(f"{name} {count}" for name, count in counts.items())
        advice = "task p owns partition p of each: replay into a new workspace with one partition count"
        yield Finding("partitions", "wrong", f"differ where they must be equal: {shown}", advice)
    elif len(counts) == len(together):
        yield Finding("partitions", "good", f"{next(iter(counts.values()))} of each: {', '.join(counts)}")


def copies(setup: SetUp) -> Iterator[Finding]:
    """Whether a broker may be lost: copies of each partition, and how many of them are up to date."""
    settings, cluster = setup.settings, setup.facts.cluster()
    brokers = len(cluster.brokers)
    wanted = settings.replication_factor or min(3, brokers)
    if wanted > brokers:
        what = f"HEADWATER_REPLICATION_FACTOR={wanted} asks for more copies than there are brokers ({brokers})"
        yield Finding("copies", "wrong", what, "no topic can be made so: add brokers, or ask for fewer copies")
    ours = {name: each for name, each in cluster.topics.items() if name.startswith(settings.prefix) and each}
    configs = setup.facts.configs(sorted(ours)) if brokers > 1 else {}
    few, behind, refused, brittle = [], [], [], []
    fewest = wanted
    for name, parts in sorted(ours.items()):
        least = min(len(each.replicas) for each in parts)
        in_sync = min(len(each.in_sync) for each in parts)
        needed = int(configs.get(name, {}).get("min.insync.replicas", 1))
        if least < wanted:
            few.append(name)
            fewest = min(fewest, least)
        if in_sync < needed:
            refused.append(name)
        elif any(len(each.in_sync) < len(each.replicas) for each in parts):
            behind.append(name)
        if needed >= least > 1:
            brittle.append(name)
    if refused:
        what = f"fewer are up to date than min.insync.replicas asks for, so nothing can be written: {some(refused)}"
        yield Finding("copies", "wrong", what, "bring the missing brokers back")
    if behind:
        yield Finding(
            "copies", "warning", f"not all are up to date: {some(behind)}", "see the brokers that lag or are away"
        )
    if few and wanted <= brokers:
        what = f"{fewest} of each partition, not {wanted}: the loss of a disk is the loss of people: {some(few)}"
        advice = "kafka-reassign-partitions.sh gives a topic more copies"
        yield Finding("copies", "warning", what, advice)
    if brittle:
        what = f"min.insync.replicas asks for all of them, so one broker away stops all work: {some(brittle)}"
        yield Finding("copies", "warning", what, "set it to one less than there are copies")
    if not (few or behind or refused or brittle) and wanted <= brokers and ours:
        yield Finding("copies", "good", f"{wanted} of each partition, all up to date")
