"""`headwater test`: a segment on a fixture of events, with a simulated clock."""

import errno
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from rich.markup import escape

from pipeline import settings as settings_module
from pipeline.accounts import GROUPS_ONLY, AccountRules
from pipeline.broker import find_kafka
from pipeline.cli._console import Console
from pipeline.cli._explained import instant, tree
from pipeline.definitions.accounts import AccountsDefinition
from pipeline.definitions.cleaning import compile_cleaning
from pipeline.definitions.contracts import compile_contracts
from pipeline.definitions.identity import identity_rules as identity_rules_of
from pipeline.definitions.loader import SUFFIXES, Written, load
from pipeline.definitions.segments import compile_definitions
from pipeline.errors import InputError, LookupFailed
from pipeline.identity import IdentityRules
from pipeline.ingest import NO_CHECKS, Checks, Emit, RawEvent, Refusal, Skip, decode, ingest
from pipeline.ingest.times import DAY_MS, to_ms
from pipeline.lookup import normalised
from pipeline.records import Event
from pipeline.runtime.ports import Record
from pipeline.segments import FixtureResult, Keeps, SegmentsPlan, explain, people_of, run_fixture
from pipeline.shown_times import shown_time
from pipeline.sources.files import inspect_file, is_csv, read_rows
from pipeline.unify.fixture import names_of_accounts, run_with_accounts

_SHOWN_MEMBERS = 50
_EXPLAINED = 3
NOBODY = "nobody"
SOURCE = "raw"


class Fixture(NamedTuple):
    """The events of a file in the order they were received, and what a person should know of the rest."""

    events: list[Event]
    remarks: list[str]


def command(
    segment: Annotated[str, typer.Argument(help="A file or folder of definitions, or the name of a segment.")],
    events: Annotated[Path, typer.Option(help="JSON lines as applications send them; .gz as well.")],
    at: Annotated[list[str], typer.Option(help="When to look: ISO 8601, or ms. May be repeated.")],
    definitions: Annotated[
        list[Path] | None, typer.Option(help="Where the named segment is defined; what is in force by default.")
    ] = None,
    expect: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Who must be a member: identifiers with commas, a file of them, or `{NOBODY}`. One per --at."
        ),
    ] = None,
    changes: Annotated[bool, typer.Option("--changes", help="Also show who entered and left, and when.")] = False,
) -> None:
    """Test a segment on a file of events: the evaluator of production, with a simulated clock. Needs no Kafka.

    A segment of accounts is tested too: its members are named account:NAME.

    An event without receivedAt is received when it was sent (sentAt), or when it happened (timestamp).
    Ends with 1 if the members are not the expected ones, and says why.

    Example: headwater test curious.yaml --events visits.jsonl --at 2026-03-01T09:30:00Z --expect user_id:ada
    """
    plan, rules, belonging, names, checks = _plan(segment, definitions or [])
    instants = [instant(text, "--at") for text in at]
    if expect is not None and (len(expect) != len(instants) or len(names) != 1):
        raise InputError(
            f"{len(expect)} --expect do not go with {len(instants)} --at and {len(names)} segments.",
            ", ".join(names),
            "give one --expect for each --at, of one segment: its name, with --definitions FILE",
        )
    if is_csv(events):
        raise InputError(
            "A fixture is a file of JSON lines.", str(events), "give one JSON object a line, as applications send them"
        )
    fixture = read_fixture(events, rules, checks)
    console, remarks = Console(highlight=False, soft_wrap=True), Console(stderr=True, highlight=False, soft_wrap=True)
    for remark in fixture.remarks:
        remarks.print(remark, markup=False)
    wanted = [expected(text, rules) for text in expect or []]
    result = _run(plan, belonging, fixture.events, instants)
    people = {**people_of(fixture.events), **names_of_accounts(result.facts)}
    failed = False
    for number, now_ms in enumerate(instants):
        for name in names:
            members = {person for person, held in result.members[now_ms].items() if name in held}
            console.print(f"[bold]{escape(name)}[/] at {shown_time(now_ms)}: {_some(members)}")
            if expect is not None:
                lines, differ = compare(members, wanted[number], people)
                failed = failed or bool(differ)
                for line in lines:
                    console.print(line)
                if differ:
                    facts = _run(plan, belonging, fixture.events, [now_ms]).facts
                    for person in differ[:_EXPLAINED]:
                        if person in facts:
                            console.print(f"\n  {escape(person)}:")
                            explained = explain(plan.of_segment(name), facts[person], now_ms, name)
                            console.print(tree(explained, now_ms), soft_wrap=False)
                        elif person in people.values():
                            console.print(f"\n  {escape(person)}: nothing was heard of them by then")
    if changes:
        for change in result.changes:
            if change.segment in names:
                sign = "[green]→ entered[/]" if change.entered else "[yellow]← exited[/] "
                console.print(f"{shown_time(change.at)} {sign} [bold]{change.segment}[/]  {escape(change.profile)}")
    if failed:
        raise typer.Exit(1)


def _run(plan: SegmentsPlan, belonging: AccountRules, events: list[Event], instants: list[int]) -> FixtureResult:
    if plan.accounts is None:
        return run_fixture(plan, events, instants)
    return run_with_accounts(plan, belonging, events, instants)


class _Plan(NamedTuple):
    """The compiled rules, the identity rules, those of who belongs to which account, the names of the segments to look
    at, and what ingest makes of events."""

    segments: SegmentsPlan
    identity: IdentityRules
    accounts: AccountRules
    names: list[str]
    checks: Checks


def _plan(segment: str, paths: Sequence[Path]) -> _Plan:
    is_path = segment.endswith(SUFFIXES) or Path(segment).exists()
    if not is_path and not paths:
        from pipeline.definitions.log import KafkaPlans

        latest = KafkaPlans(find_kafka(settings_module.load())).latest()
        _required(segment, latest.segments.names)
        checks = Checks(latest.contracts, latest.cleaning)
        return _Plan(latest.segments, latest.identity, latest.accounts, [segment], checks)
    written = load([Path(segment), *paths] if is_path else paths)
    contracts = compile_contracts({each.name: (1, each.body) for each in written if each.kind == "contract"})
    checks = Checks(contracts, compile_cleaning(_bodies(written, "cleaning"), _bodies(written, "reference")))
    keeps = Keeps(contracts.keeps_events, contracts.keeps_parts)
    plan = compile_definitions(_of(written, "segment"), _of(written, "trait"), keeps=keeps)
    identity = [each.body for each in written if each.kind == "identity"]
    rules = identity_rules_of(identity[0] if identity else {})
    accounts = [AccountsDefinition.model_validate(each.body) for each in written if each.kind == "accounts"]
    belonging = accounts[0].compiled({}, rules) if accounts else GROUPS_ONLY
    if not is_path:
        _required(segment, plan.names)
        return _Plan(plan, rules, belonging, [segment], checks)
    own = [each.name for each in load([Path(segment)]) if each.kind == "segment"]
    if not own:
        raise LookupFailed("There is no segment here.", segment, "name a file that defines one")
    return _Plan(plan, rules, belonging, own, checks)


def _of(written: Sequence[Written], kind: str) -> list[tuple[dict[str, object], int]]:
    return [(each.body, 1) for each in written if each.kind == kind]


def _bodies(written: Sequence[Written], kind: str) -> dict[str, dict[str, Any]]:
    return {each.name: each.body for each in written if each.kind == kind}


def _required(segment: str, known: list[str]) -> None:
    if segment not in known:
        there = ", ".join(sorted(known)) or "none"
        raise LookupFailed(f"There is no segment {segment}.", "", f"there are: {there}; a file may be named as well")


def read_fixture(path: Path, rules: IdentityRules, checks: Checks = NO_CHECKS) -> Fixture:
    """The events of a file of JSON lines, as ingest makes them, as if they came by the usual source.

    Raises:
        InputError: a line says no time at which it could be played.
    """
    facts = inspect_file(path)
    found: list[Event] = []
    remarks: list[str] = []
    for row in read_rows(path, facts):
        raw = decode(row.value)
        outcome = raw if isinstance(raw, Refusal) else _ingest(row.line, row.value, raw, rules, checks, path)
        if isinstance(outcome, Emit):
            found.append(outcome.event)
            undone = [flag.partition(":")[2] for flag in outcome.event.flags if flag.startswith("cleaning_failed:")]
            if undone:
                what = "it needs what is at hand where ingest runs, or failed"
                remarks.append(f"{path}:{row.line}: a step of {', '.join(undone)} was not taken: {what}")
        else:
            remarks.append(f"{path}:{row.line}: left out, {outcome.reason}: {outcome.detail}")
    found.sort(key=lambda event: event.received)
    accepted: dict[tuple[str, str], int] = {}
    events = []
    for event in found:
        key = event.identifiers[0], event.message_id
        if event.received - accepted.get(key, -DAY_MS - 1) <= DAY_MS:
            remarks.append(f"{path}: left out, a duplicate: {event.message_id} of {event.identifiers[0]}")
            continue
        accepted[key] = event.received
        events.append(event)
    return Fixture(events, remarks)


def _ingest(line: int, value: bytes, raw: RawEvent, rules: IdentityRules, checks: Checks, path: Path) -> Emit | Refusal:
    why = "An event of a fixture needs a time."
    for time in (raw.received_at, raw.sent_at, raw.timestamp, raw.original_timestamp):
        now_ms = to_ms(time) if time is not None else ""
        if isinstance(now_ms, str) and now_ms:
            why = f"The time of an event of a fixture cannot be used: {now_ms}"
        if isinstance(now_ms, int):
            outcome = ingest(Record(SOURCE, 0, line, None, value), now_ms, rules, checks)
            assert not isinstance(outcome, Skip), "only a mapping skips"
            return outcome
    raise InputError(why, f"{path}:{line}", 'give it a "timestamp": "2026-03-01T09:30:00Z"')


def expected(text: str, rules: IdentityRules) -> list[str]:
    """The identifiers of an --expect, normalised: of a file (one a line, # for remarks), or with commas between."""
    if text.strip() == NOBODY:
        return []
    if not text.strip(" ,"):
        raise InputError(
            "--expect names nobody.", "", f"name identifiers, a file of them, or `{NOBODY}` if that is meant"
        )
    held = _file_at(text)
    if held is not None:
        lines = [line.partition("#")[0].strip() for line in held.splitlines()]
    else:
        lines = [part.strip() for part in text.split(",")]
    return [normalised(line, rules) for line in lines if line]


def _file_at(text: str) -> str | None:
    """What stands in the file of this name; None if there is none. Raises InputError."""
    try:
        return Path(text).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError("The file of --expect is not UTF-8.", text, "save it as UTF-8") from None
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            return None
        raise InputError(f"The file of --expect cannot be read: {error.strerror}.", text) from None


def compare(members: set[str], wanted: Sequence[str], people: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """The difference as lines with markup, and the people it is about. `people`: identifier → name of its person."""
    by_person: dict[str, str] = {}
    for identifier in wanted:
        by_person.setdefault(people.get(identifier, identifier), identifier)
    missing = sorted(set(by_person) - members)
    unexpected = sorted(members - set(by_person))
    if not missing and not unexpected:
        return ["  [green]✓[/] as expected"], []
    lines = ["  [red]✗[/] not as expected"]
    for person in missing:
        unknown = "" if person in people.values() else "; no event says anything of them"
        lines.append(f"    [red]−[/] {escape(by_person[person])}: expected, and is no member{unknown}")
    lines += [f"    [red]+[/] {escape(person)}: a member, and was not expected" for person in unexpected]
    return lines, [*missing, *unexpected]


def _some(members: set[str]) -> str:
    shown = ", ".join(escape(member) for member in sorted(members)[:_SHOWN_MEMBERS])
    more = f" and {len(members) - _SHOWN_MEMBERS} more" if len(members) > _SHOWN_MEMBERS else ""
    return f"{len(members)} {'member' if len(members) == 1 else 'members'}{': ' if members else ''}{shown}{more}"
