"""`headwater replay`: the same history into another workspace, beside this one."""

import getpass
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from pipeline import settings as settings_module
from pipeline.admin import refuse_other_partitions
from pipeline.broker import find_kafka
from pipeline.cli._console import Console
from pipeline.replay import workspace
from pipeline.replay.run import Progress as Copied
from pipeline.replay.run import run as copy_on
from pipeline.secret_check import refuse_another_secret
from pipeline.settings import Settings
from pipeline.shown_times import shown_minute, shown_second
from pipeline.up.processes import Processes
from pipeline.workspace_view import view_of

app = typer.Typer(
    no_args_is_help=True, help="Fill a new workspace from the history of this one, compare the two, and switch."
)

_PLAIN_LINE_EVERY_S = 5.0


@app.command()
def begin(
    prefix: Annotated[str, typer.Argument(help="The prefix of the new workspace, for example shop2.")],
    partitions: Annotated[int | None, typer.Option(help="Its partitions; as many as here by default.", min=1)] = None,
    definitions: Annotated[
        list[Path] | None, typer.Option(help="Definitions that are other there: identity rules, segments.")
    ] = None,
    state_dir: Annotated[Path | None, typer.Option(help="Its state folder; .PREFIX by default.")] = None,
    file: Annotated[Path | None, typer.Option(help="Its settings file; PREFIX.yaml by default.")] = None,
) -> None:
    """Make the new workspace: topics, the definitions of this one and your changes to them, and a settings file.

    Example: headwater replay begin shop2. --partitions 7 --definitions new-identity.yaml
    """
    from pipeline.definitions.loader import load

    old = find_kafka(settings_module.load())
    name = prefix.strip(".")
    new = old.model_copy(
        update={
            "prefix": prefix,
            "partitions": partitions or workspace.partition_count(old, "events"),
            "sources_prefix": old.prefix if old.sources_prefix is None else old.sources_prefix,
            "state_dir": state_dir or Path(f".{name}"),
        }
    )
    new = Settings.model_validate(new.model_dump(exclude={"secret"}) | {"secret": old.secret})
    workspace.share_secret(old, new)
    workspace.begin(old, new, load(definitions) if definitions else [], applied_by=getpass.getuser())
    path = file or Path(f"{name}.yaml")
    path.write_text(workspace.settings_file(old, new), encoding="utf-8")
    typer.echo(f"The workspace {prefix} is made; its settings are in {path}.")
    if old.kafka:
        typer.echo("Your `kafka:` settings may hold passwords and were not written into it: add them, or set them.")
    typer.echo(f"Next: HEADWATER_CONFIG={path} headwater replay run --with-roles")


@app.command()
def run(
    with_roles: Annotated[bool, typer.Option(help="Also run identity and unify of the new workspace here.")] = False,
    ahead: Annotated[int, typer.Option(help="Records that may be on their way in it at once.", min=1)] = 16_000,
    until_caught_up: Annotated[bool, typer.Option(help="End when it has reached the end of the old log.")] = False,
) -> None:
    """Copy the history of the old workspace into this one, and follow it until the switch.

    Run it with the settings of the new workspace, whose identity and unify must be running. It can be stopped and
    killed at any time, and goes on where it was.

    Example: headwater replay run --with-roles
    """
    from pipeline.replay.ports import CopySettings

    settings = find_kafka(settings_module.load())
    _refuse_what_is_of_another(settings)
    workspace.origin_of(settings)
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: asked.append(number))
    shown = _Shown(settings)
    with ExitStack() as stack:
        roles = stack.enter_context(_roles(settings)) if with_roles else None

        def show(progress: Copied) -> None:
            shown.show(progress)
            if roles is not None:
                roles.tend()

        with shown.bar:
            copy_on(
                settings,
                lambda: bool(asked) or (until_caught_up and shown.caught_up),
                show,
                CopySettings(ahead=ahead),
            )
        position = view_of(settings).position
        typer.echo(f"{position.copied if position else 0:,} events are copied.")
        if roles is None or asked or until_caught_up:
            typer.echo("Next: headwater replay compare OLD NEW")
            return
        typer.echo("The switch has taken the copier's place. identity and unify go on here until Ctrl-C.")
        while not asked:
            roles.tend()
            time.sleep(1)


def _refuse_what_is_of_another(settings: Settings) -> None:
    """Raises SettingsError: what stands above the settings file, as a variable that the old workspace needs, does not
    fit the new one."""
    refuse_other_partitions(settings)
    refuse_another_secret(settings)


def _roles(settings: Settings) -> Processes:

    environment = {
        "HEADWATER_BOOTSTRAP_SERVERS": str(settings.bootstrap_servers),
        "HEADWATER_STATE_DIR": str(settings.state_dir.resolve()),
        "HEADWATER_PREFIX": settings.prefix,
        "HEADWATER_PARTITIONS": str(settings.partitions),
        "HEADWATER_SECRET": settings.secret_bytes().decode(),
    }
    return Processes((("identity",), ("unify",)), environment, settings.state_dir / "logs", settings.metrics_port)


class _Shown:
    """The progress of a copy, as a bar or, where nobody looks, as a line now and then."""

    def __init__(self, settings: Settings) -> None:
        self.caught_up = False
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[told]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._task = self.bar.add_task(f"history into {settings.prefix}", total=None, told="")
        self._said_s = 0.0
        self._rates: list[tuple[float, int]] = []

    def show(self, progress: Copied) -> None:
        """Show how far it is."""
        now_s = time.monotonic()
        self._rates = [one for one in self._rates if now_s - one[0] < 10] + [(now_s, progress.copied)]
        first_s, first = self._rates[0]
        rate = (progress.copied - first) / (now_s - first_s) if now_s > first_s else 0
        day = shown_minute(progress.clock_ms)
        told = f"{progress.copied:,} events, {rate:,.0f}/s, at {day}, {progress.left:,} positions left"
        self.caught_up = progress.at_end
        if self.bar.disable:
            if now_s - self._said_s >= _PLAIN_LINE_EVERY_S:
                self._said_s = now_s
                typer.echo(told, err=True)
        else:
            done = progress.copied
            self.bar.update(self._task, completed=done, total=done + progress.left, told=told)


@app.command()
def compare(
    old: Annotated[str, typer.Argument(help="The prefix of the one workspace.")],
    new: Annotated[str, typer.Argument(help="The prefix of the other.")],
    samples: Annotated[int, typer.Option(help="Show so many profiles of each kind of difference.", min=0, max=20)] = 3,
) -> None:
    """Compare the profiles and members of two workspaces: how many differ, which, and why. Ends with 1 if any do.

    Example: headwater replay compare headwater. shop2.
    """
    from pipeline.replay.compare import DIFFERENT, ONLY_HERE
    from pipeline.replay.compare import compare as compared

    settings = find_kafka(settings_module.load())
    found = compared(_tables(settings, old), _tables(settings, new))
    console = Console(highlight=False)
    table = Table(title="profiles", title_justify="left", box=None, pad_edge=False)
    for heading in ("", "profiles", "why"):
        table.add_column(heading, justify="right" if heading == "profiles" else "left")
    names = {"only old": f"only in {old}", "only new": f"only in {new}"}
    for (where, why), count in sorted(found.profiles.items(), key=lambda one: one[0] != ("same", "")):
        table.add_row(names.get(where, where), f"{count:,}", {**ONLY_HERE, **DIFFERENT}.get(why, ""))
    console.print(table)
    table = Table(title="members", title_justify="left", box=None, pad_edge=False)
    for heading in ("segment", "in both", names["only old"], names["only new"], "why"):
        table.add_column(heading, justify="left" if heading in ("segment", "why") else "right")
    for segment, counts in sorted(found.members.items()):
        reasons = Counter[str]()
        for (name, _, reason), count in found.reasons.items():
            reasons[reason] += count if name == segment else 0
        told = ", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common() if count)
        table.add_row(segment, *(f"{counts[one]:,}" for one in ("both", "only old", "only new")), told)
    console.print(table)
    for (where, what), some in sorted(found.samples.items()):
        for sample in some[:samples]:
            console.print(f"{names.get(where, where)}, {what}: {sample.profile_id} ({sample.why})")
    if found.is_equal:
        console.print("They are equal.")
    else:
        console.print("Look at one: headwater profile PROFILE_ID, with the settings of each")
        raise typer.Exit(1)


def _tables(settings: Settings, prefix: str) -> Callable[[str], Iterator[tuple[bytes, bytes]]]:
    from pipeline.runtime.kafka.doors import current_values

    workspace_settings = settings.model_copy(update={"prefix": prefix})
    return lambda topic: iter(current_values(workspace_settings, topic).items())


@app.command()
def switch(
    wait: Annotated[float, typer.Option(help="Wait at most so many seconds for each step.", min=1)] = 300.0,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Let this workspace take over: the old ingest ends, the new one goes on where it stopped, subscribers move over.

    Run it with the settings of the new workspace, while identity and unify of both are running. What producers send in
    the meantime waits in the sources. A switch that was interrupted is run again.

    Example: headwater replay switch
    """
    from pipeline.replay.switch import switch as take_over

    settings = find_kafka(settings_module.load())
    _refuse_what_is_of_another(settings)
    origin = workspace.origin_of(settings)
    if not yes:
        typer.confirm(f"{settings.prefix} takes over from {origin.prefix}, for good?", abort=True)
    successor = take_over(settings, typer.echo, wait)
    starts = sum(sum(places) for topic, places in successor.starts.items() if topic == "segment-changes")
    typer.echo(f"{settings.prefix} has taken over. Subscribers go on {starts:,} records into its segment-changes.")
    typer.echo(f"Leave the old deliver running until nothing waits, then stop what is left of {origin.prefix}")


@app.command()
def status() -> None:
    """Tell how far the replay into this workspace is, or where this one goes on.

    Example: headwater replay status
    """
    settings = find_kafka(settings_module.load())
    view = view_of(settings)
    if view.successor is not None:
        typer.echo(f"{settings.prefix} goes on in {view.successor.prefix}.")
    if view.origin is None:
        if view.successor is None:
            typer.echo(f"{settings.prefix} is no replay.")
        return
    position = view.position
    if position is None:
        typer.echo(f"{settings.prefix} is a replay of {view.origin.prefix}. Nothing is copied yet.")
        return
    old = workspace.old_settings(settings, view.origin)
    left = workspace.positions_left(old, position)
    day = shown_second(position.clock)
    typer.echo(f"{settings.prefix} is a replay of {view.origin.prefix}, at {day}.")
    typer.echo(
        f"{position.copied:,} events copied ({position.rerouted:,} of them under other identifiers), "
        f"{position.erased:,} left out because they were erased, {position.refused:,} dead letters, "
        f"{position.decided_records:,} decisions; {left:,} positions left."
    )
    if position.ended:
        typer.echo("It has taken over: it is no copy any more.")
