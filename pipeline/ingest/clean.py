"""From the tracking spec's shape to a clean event: who, what, when.

    field                                   becomes
    userId, anonymousId                     identifiers user_id, anonymous_id
    context.device.id                       identifier device_id
    email, phone in the person's traits     identifiers email, phone
    identifiers: {namespace: value | list}  identifiers of these namespaces
    context.externalIds: [{type, id}, …]    the same, as SDKs can send them: type is the namespace
    previousId of an alias                  identifier anonymous_id: what the person was before being known
    traits and context.traits               the person's traits; `traits` wins
    traits of a group                       properties: they describe the account, not the person
    name, category of a page or screen      properties
    groupId, context.groupId                group_id
    source, a text                          origin: what the contract and the statistics of the source go by
    context.consent                         the same, each word of it true or false (consents.py)

A junk identifier is dropped, and the event says so; an event with nothing but junk is refused.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.cleaning import NO_CLEANING, NO_TOOLS, CleaningPlan, Draft, Spoiled, Tools
from pipeline.contracts import NO_CONTRACTS, ContractsPlan, Violation, check
from pipeline.identity import JUNK_REASONS, IdentityRules, Junk, clean_id
from pipeline.ingest.consents import read_consents
from pipeline.ingest.decode import RawEvent
from pipeline.ingest.mapping import NO_MAPPINGS, MappingPlan, SchemaOf, no_registry
from pipeline.ingest.outcomes import Refusal
from pipeline.ingest.times import Times, when
from pipeline.records import Event, source_name

MAX_IDENTIFIERS = 32
MAX_NAME_LENGTH = 512
MAX_SOURCE_LENGTH = 100

# The name under which rules refer to a call; None: its own `event`.
EVENT_NAMES: dict[str, str | None] = {
    "track": None,
    "identify": "Identify",
    "page": "Page Viewed",
    "screen": "Screen Viewed",
    "group": "Group",
    "alias": "Alias",
}

_PERSONAL_TRAITS = ("email", "phone")


Told = Callable[[str, str, tuple[Violation, ...]], None]
"""Is told of violations: the version of the contract, the event, and what was violated."""


def nobody_is_told(version: str, event: str, violations: tuple[Violation, ...]) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Checks:
    """What people defined of incoming records: mappings first, then cleaning, then contracts.

    `told` hears of violations, `schema_of` asks the registry.
    """

    contracts: ContractsPlan = NO_CONTRACTS
    cleaning: CleaningPlan = NO_CLEANING
    told: Told = nobody_is_told
    tools: Tools = NO_TOOLS
    mappings: MappingPlan = NO_MAPPINGS
    schema_of: SchemaOf = no_registry


NO_CHECKS = Checks()


def clean(
    raw: RawEvent,
    position: str,
    record_ms: int,
    came_ms: int,
    rules: IdentityRules,
    checks: Checks = NO_CHECKS,
) -> Event | Refusal:
    """The clean event, or why it cannot be used.

    `position` is "topic/partition/offset" of the raw record, `record_ms` its timestamp (0: none), `came_ms` when it
    came. An event is cleaned and checked against the contract of its source before identifiers are taken from it: what
    is stripped is no identifier either.
    """
    kind, name = raw.type or "", _event_name(raw)
    if isinstance(name, Refusal):
        return name
    times = _times(raw, record_ms, came_ms)
    if isinstance(times, Refusal):
        return times
    flags = list(times.flags)

    context = raw.context or {}
    own_traits = context.pop("traits", None) or {}
    if not isinstance(own_traits, dict):
        return Refusal("wrong_type", "context.traits must be an object.", "/context/traits")
    properties, traits = _properties_and_traits(raw, own_traits)
    if context.get("bot") is True:
        flags.append("bot")

    source = raw.source[:MAX_SOURCE_LENGTH] if type(raw.source) is str else ""
    version: str | None = None
    if checks.cleaning.cleanings or checks.contracts.contracts:
        draft = Draft(name, {"properties": properties, "traits": traits, "context": context})
        version_or_refusal = _checked(draft, source_name(source, position), checks)
        if isinstance(version_or_refusal, Refusal):
            return version_or_refusal
        version, name = version_or_refusal, draft.event
        flags += draft.flags
    if "consent" in context:
        flags += read_consents(context)

    given, malformed = _given(raw, kind, context, traits)
    if malformed is not None:
        return malformed
    found: list[tuple[int, int, str]] = []
    for namespace, value in given:
        ranked = rules.ranked(namespace, value)
        if isinstance(ranked, Junk):
            flags.append(f"junk_identifier:{namespace[:64]}")
        elif ranked not in found:
            found.append(ranked)
    if not found:
        return _nobody(given, rules)
    found.sort()

    group_id, junk_group = _group(raw, context, rules)
    if junk_group:
        flags.append("junk_group")
    if kind == "group" and group_id is None:
        return Refusal("missing_group", "A group call needs a groupId that names an account.", "/groupId")
    if kind == "alias":
        missing = _alias_side_missing(raw, rules)
        if missing is not None:
            return missing

    message_id = _message_id(raw)
    if isinstance(message_id, Refusal):
        return message_id
    if isinstance(message_id, Junk):
        # Duplicates are told by it: if all events are called "undefined", all but one would vanish.
        flags.append("junk_message_id")
    if not isinstance(message_id, str):
        # A topic that was deleted and made again has its positions a second time: the record's time tells them apart.
        message_id = f"{position}@{record_ms}"

    return Event(
        message_id=message_id,
        type=kind,
        event=name,
        identifiers=[text for _, _, text in found],
        time=times.time,
        received=times.received,
        source=position,
        properties=properties,
        traits=traits,
        context=context,
        group_id=group_id,
        flags=flags,
        contract=version,
        origin=source,
    )


def _event_name(raw: RawEvent) -> str | Refusal:
    """The name under which rules refer to the call; its type is one of the spec's then."""
    kind = raw.type
    if kind is None or kind not in EVENT_NAMES:
        what = "The type is missing" if kind is None else f"{kind[:40]!r} is not a type"
        return Refusal("unknown_type", f"{what}; the types are {', '.join(EVENT_NAMES)}.", "/type")
    name = EVENT_NAMES[kind]
    if name is not None:
        return name
    name = raw.event
    if name is None or not name.strip():
        return Refusal("missing_event", "A track call needs the name of its event in `event`.", "/event")
    if len(name) > MAX_NAME_LENGTH:
        return Refusal("too_long", f"The event's name has {len(name)} characters, of {MAX_NAME_LENGTH}.", "/event")
    return name


def _times(raw: RawEvent, record_ms: int, came_ms: int) -> Times | Refusal:
    timestamp = raw.original_timestamp if raw.timestamp is None else raw.timestamp
    sent_at = raw.sent_at
    if raw.timestamp is not None and raw.original_timestamp not in (None, raw.timestamp):
        # Another platform has put the sender's clock right: its archive has both.
        sent_at = None
    times = when(timestamp, sent_at, raw.received_at, record_ms, came_ms)
    if isinstance(times, str):
        where = "/originalTimestamp" if raw.timestamp is None else "/timestamp"
        return Refusal("bad_timestamp", f"The timestamp cannot be used: {times}.", where)
    return times


def _properties_and_traits(raw: RawEvent, own_traits: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The event's properties and the person's traits, of which `own_traits` came in the context."""
    properties = raw.properties or {}
    if raw.type == "group":
        return {**properties, **(raw.traits or {})}, own_traits
    if raw.type in ("page", "screen"):
        if raw.name is not None:
            properties.setdefault("name", raw.name)
        if raw.category is not None:
            properties.setdefault("category", raw.category)
    if raw.traits:
        return properties, {**own_traits, **raw.traits} if own_traits else raw.traits
    return properties, own_traits


def _message_id(raw: RawEvent) -> str | Junk | Refusal | None:
    """The event's own id; junk if it cannot be used, None if it has none."""
    if raw.message_id is None:
        return None
    stated = clean_id(raw.message_id)
    if isinstance(stated, Junk) and stated.reason == "too_long":
        return Refusal("too_long", f"The messageId is {JUNK_REASONS['too_long']}.", "/messageId")
    return stated


def _checked(draft: Draft, source: str, checks: Checks) -> str | Refusal | None:
    """Clean the draft and check it; the version of the contract it met, or None for no contract."""
    try:
        checks.cleaning.apply(source, draft, checks.tools)
    except Spoiled as spoiled:
        return Refusal("cleaning_failed", f"The event could not be cleaned: {spoiled}.")
    contract = checks.contracts.of_source(source)
    if contract is None:
        return None
    checked = check(contract, draft.event, draft.sections)
    if checked.violations:
        checks.told(contract.version, draft.event, checked.violations)
        if checked.rejected:
            return _rejected(checked.rejected, contract.version, checked.violations)
        draft.flags += checked.flags
    return contract.version


def _rejected(reason: str, version: str, violations: tuple[Violation, ...]) -> Refusal:
    first, others = violations[0], len(violations) - 1
    more = f"; {others} more" if others else ""
    return Refusal(reason, f"Against the contract {version}, {first.pointer}: {first.detail}{more}.", first.pointer)


def _given(
    raw: RawEvent, kind: str, context: dict[str, Any], traits: dict[str, Any]
) -> tuple[list[tuple[str, Any]], Refusal | None]:
    """Every (namespace, raw value) the event offers. An absent or null field offers nothing."""
    given: list[tuple[str, Any]] = []
    if raw.user_id is not None:
        given.append(("user_id", raw.user_id))
    if raw.anonymous_id is not None:
        given.append(("anonymous_id", raw.anonymous_id))
    if kind == "alias" and raw.previous_id is not None:
        given.append(("anonymous_id", raw.previous_id))
    if traits:
        for name in _PERSONAL_TRAITS:
            if traits.get(name) is not None:
                given.append((name, traits[name]))
    device = context.get("device")
    if type(device) is dict and device.get("id") is not None:
        given.append(("device_id", device["id"]))
    external = context.get("externalIds")
    if type(external) is list:
        for each in external:
            if type(each) is dict and type(each.get("type")) is str and each.get("id") is not None:
                given.append((each["type"], each["id"]))
    if raw.identifiers:
        for namespace, value in raw.identifiers.items():
            if isinstance(value, list):
                given.extend((namespace, one) for one in value)
            elif isinstance(value, dict):
                what = f"identifiers.{namespace[:40]} must be a value or a list of values, not an object."
                return given, Refusal("wrong_type", what, "/identifiers")
            elif value is not None:
                given.append((namespace, value))
    if len(given) > MAX_IDENTIFIERS:
        what = f"The event carries {len(given)} identifiers; {MAX_IDENTIFIERS} are allowed."
        return given, Refusal("too_many_identifiers", what, "/identifiers")
    return given, None


def _nobody(given: list[tuple[str, Any]], rules: IdentityRules) -> Refusal:
    if not given:
        fields = (
            "userId, anonymousId, context.device.id, an e-mail or phone trait, context.externalIds, or `identifiers`"
        )
        return Refusal("no_identifier", f"Nothing says who it was: give {fields}.")
    told = []
    for namespace, value in given[:5]:
        junk = rules.ranked(namespace, value)
        why = JUNK_REASONS[junk.reason] if isinstance(junk, Junk) else ""
        told.append(f"{namespace[:40]} {str(value)[:40]!r}: {why}")
    return Refusal("only_junk_identifiers", f"No identifier can be used. {'; '.join(told)}.")


def _group(raw: RawEvent, context: dict[str, Any], rules: IdentityRules) -> tuple[str | None, bool]:
    """The account the event names, and whether one was named that cannot be used."""
    stated: Any = raw.group_id
    if stated is None:
        stated = context.get("groupId")
        if stated is None:
            return None, False
    cleaned = rules.clean("group_id", stated)
    return (None, True) if isinstance(cleaned, Junk) else (cleaned, False)


def _alias_side_missing(raw: RawEvent, rules: IdentityRules) -> Refusal | None:
    sides = (("previousId", "anonymous_id", raw.previous_id), ("userId", "user_id", raw.user_id))
    for field, namespace, value in sides:
        if isinstance(rules.clean(namespace, value), Junk):
            what = f"An alias ties previousId to userId; {field} is missing or junk."
            return Refusal("missing_previous", what, f"/{field}")
    return None
