"""The rights of the user that the settings name, beside those that `headwater topics acls` prints for a role."""

from collections.abc import Iterator, Mapping

from confluent_kafka import KafkaException

from pipeline.doctor.finding import Finding, SetUp, some
from pipeline.doctor.topics import destinations
from pipeline.rights import Right, rights

_NAMES = {"DescribeConfigs": "DESCRIBE_CONFIGS", "AlterConfigs": "ALTER_CONFIGS"}


def allowed(setup: SetUp) -> Iterator[Finding]:
    """What of its rights the role lacks. Without a role nothing is asked: nobody needs the rights of all."""
    if setup.role is None:
        return
    wanted = [each for each in rights(setup.settings, destinations(setup)) if each.role == setup.role]
    topics = sorted({each.name for each in wanted if each.resource == "topic" and not each.prefixed})
    groups = sorted({each.name for each in wanted if each.resource == "group" and not each.prefixed})
    subject = f"rights of {setup.role}"
    try:
        found = setup.facts.allowed(topics, groups)
    except KafkaException as error:
        yield Finding(subject, "warning", f"could not be asked for: {error.args[0].str()}")
        return
    lacking = [text for each in wanted if not each.prefixed for text in _lacking(each, found.topics, found.groups)]
    if lacking:
        advice = f"grant them: `headwater topics acls`, the lines of {setup.role}"
        yield Finding(subject, "wrong", f"missing: {some(lacking, 8)}", advice)
    else:
        detail = f"all of those on {len(topics)} topics and {len(groups)} groups; a Kafka does not tell of other rights"
        yield Finding(subject, "good", detail)


def _lacking(
    right: Right, topics: Mapping[str, frozenset[str] | None], groups: Mapping[str, frozenset[str] | None]
) -> Iterator[str]:
    kinds: dict[str, Mapping[str, frozenset[str] | None]] = {"topic": topics, "group": groups}
    has = kinds.get(right.resource, {})
    if right.name not in has:
        return  # it is not there yet, or is of a kind that cannot be asked for
    may = has[right.name]
    missing = [one for one in right.operations if may is None or _NAMES.get(one, one.upper()) not in may]
    if missing:
        yield f"{' and '.join(missing)} on {right.resource} {right.name}"
