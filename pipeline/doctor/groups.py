"""The groups of the roles: who works in them, how far behind they are, and whether that gets better."""

from collections.abc import Iterator

from confluent_kafka import KafkaException

from pipeline.doctor.finding import Finding, SetUp, some
from pipeline.doctor.topics import destinations
from pipeline.runtime.progress import reports_in
from pipeline.topology import DELIVERIES, IDENTITY, INGEST, UNIFY

_STAGES = (INGEST.name, IDENTITY.name, UNIFY.name)
# Of so few it is no news that more have come than were done, and with so few left the ends of transactions count.
_FEW = 100
_COUNTED = 1_000
_LOOK_S = 3.0
_RIGHTS = "give this user the right to describe groups and topics"


def reading(setup: SetUp) -> dict[str, tuple[str, ...]]:
    """The groups, without the prefix, and the topics each reads."""
    found = {role.name: role.inputs for role in (INGEST, IDENTITY, UNIFY)}
    found[INGEST.name] = setup.settings.sources
    return found | {f"deliver-{name}": (DELIVERIES.name + name,) for name in destinations(setup)}


def lag(setup: SetUp) -> Iterator[Finding]:
    """How far each group is behind; of one that works and is, whether it comes nearer."""
    groups = reading(setup)
    prefix = setup.settings.prefix
    try:
        working = {name: len(each.members) for name, each in setup.facts.groups([prefix + g for g in groups]).items()}
        before = setup.facts.positions(groups)
        waits: dict[str, int | None] = {group: max(0, end - committed) for group, (committed, end) in before.items()}
        few = {group: groups[group] for group, count in waits.items() if count and count <= _COUNTED}
        if few:
            waits |= setup.facts.waiting(few)
        watched = {
            group: groups[group]
            for group, count in waits.items()
            if count and working[prefix + group] and (count > _FEW or group in _STAGES)
        }
        after = {}
        if watched:
            setup.sleep(_LOOK_S)
            after = setup.facts.positions(watched)
    except KafkaException as error:
        yield Finding("groups", "warning", f"could not be read: {error.args[0]}", _RIGHTS)
        return
    for group, position in before.items():
        members, count = working[prefix + group], waits[group]
        subject = f"group {prefix}{group}"
        if not members and count != 0:
            advice = f"headwater up, or headwater run {group.partition('-')[0]}"
            said = _behind(position[1] - position[0] if count is None else count)
            yield Finding(subject, "warning", f"{said}, and nobody is working", advice)
        elif not members and group == INGEST.name and working[prefix + UNIFY.name] and not _is_copy(setup):
            # Who else works learns from it how late it is.
            detail = "nobody is working: nothing becomes true, or ends, by time alone"
            yield Finding(subject, "warning", detail, "headwater up, or headwater run ingest")
        elif group in after and count:
            yield _judged(setup, subject, group, members, count, position, after[group])
        elif count is None:
            # A position stops before the record that ends a transaction.
            said = f"{position[1] - position[0]:,} positions behind, which may be ends of transactions"
            yield Finding(subject, "good", f"{members} working, {said}: the topics may not be read")
        else:
            # A delivery waits for as long as its destination is away, and those behind it do not: that is not stuck.
            yield Finding(subject, "good", f"{members} working, {_behind(count)}")


def _is_copy(setup: SetUp) -> bool:
    """Whether it may be one of another workspace, which learns from that one how late it is until the switch."""
    return setup.settings.sources_prefix is not None


def _judged(
    setup: SetUp,
    subject: str,
    group: str,
    members: int,
    count: int,
    before: tuple[int, int],
    after: tuple[int, int],
) -> Finding:
    done, came = after[0] - before[0], after[1] - before[1]
    is_few = count <= _FEW
    behind = max(0, count + came - done) if is_few else after[1] - after[0]
    detail = f"{members} working, {_behind(behind)}"
    if any(told.restoring for told in reports_in(setup.settings.state_dir / group)):
        return Finding(subject, "good", f"{detail}; its state is being restored first")
    if done <= 0:
        advice = (
            "see the log of the role: it restores its state, waits for somebody's open transaction, or hangs;"
            " one that neither works nor ends may be killed, which loses nothing"
        )
        return Finding(subject, "warning", f"{detail}, and stuck: nothing was done in {_LOOK_S:.0f} s", advice)
    if is_few:
        return Finding(subject, "good", detail)
    rate = f"{done / _LOOK_S:,.0f} a second are done, {came / _LOOK_S:,.0f} come"
    if done < came:
        advice = "add workers, up to the number of partitions; see headwater_batch_records and its CPU"
        return Finding(subject, "warning", f"{detail} and falling back: {rate}", advice)
    left = f", caught up in about {behind / (done - came) * _LOOK_S:,.0f} s" if done > came else ""
    return Finding(subject, "good", f"{detail}: {rate}{left}")


def _behind(count: int) -> str:
    return f"{count:,} record{'' if count == 1 else 's'} behind" if count else "nothing waits"


def members(setup: SetUp) -> Iterator[Finding]:
    """Whether everybody in a group of ours is a worker of ours: with an id of its own, sharing partitions as we do."""
    prefix = setup.settings.prefix
    try:
        described = setup.facts.groups([prefix + name for name in reading(setup)])
    except KafkaException:
        return  # `lag` has said so
    for name, group in sorted(described.items()):
        strangers = [f"{each.client} at {each.host.lstrip('/')}" for each in group.members if each.instance is None]
        if strangers:
            what = f"{len(strangers)} of {len(group.members)} in the group have no member id: {some(strangers)}"
            advice = (
                "they are no workers of Headwater, and take records from those that are: give that program another"
                " group.id. A role started by `headwater run` has the id of its --slot"
            )
            yield Finding(f"members of {name}", "wrong", what, advice)
        if group.members and group.assignor not in ("", "range"):
            what = f"partitions are shared by {group.assignor!r}, which parts events from links"
            yield Finding(f"members of {name}", "wrong", what, "stop whoever joined this group with other settings")
