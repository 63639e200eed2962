"""What `headwater segments`, `destinations` and `contracts` share: listing, showing, pausing and removing a kind."""

import getpass
from collections.abc import Callable
from typing import Annotated, Literal

import typer
from rich.syntax import Syntax
from rich.table import Table

from pipeline import settings as settings_module
from pipeline.broker import find_kafka
from pipeline.cli._console import Console
from pipeline.cli.apply import tell
from pipeline.definitions.export import as_yaml
from pipeline.definitions.log import apply, read_catalog
from pipeline.errors import LookupFailed
from pipeline.privacy import audit
from pipeline.records import Definition
from pipeline.settings import Settings
from pipeline.shown_times import shown_minute

Extra = Callable[[Settings], dict[str, str]]
Name = Annotated[str, typer.Argument(help="As `list` shows it.")]
TakeOver = Annotated[bool, typer.Option(help="Even if somebody else owns it.")]


Listed = Literal["segment", "destination", "contract", "cleaning"]


def build(kind: Listed, title: str, extra_column: str, extra: Extra) -> typer.Typer:
    """The commands of one kind. `extra` gives one more column of the list: name → text."""
    app = typer.Typer(no_args_is_help=True, help=f"List, show, pause and remove {kind}s.")

    def settings_now() -> Settings:
        return find_kafka(settings_module.load())

    def change(settings: Settings, word: str, name: str, take_over: bool) -> None:
        chosen = {word: [f"{kind}/{name}"]}
        planned = apply(
            settings,
            take_over=take_over,
            applied_by=getpass.getuser(),
            remove=chosen.get("remove", ()),
            pause=chosen.get("pause", ()),
            resume=chosen.get("resume", ()),
        )
        if planned.changes:
            audit.note(settings, "applied", what=f"{word} {kind}/{name}")
        console = Console(highlight=False)
        tell(planned, console, dry_run=False)
        for line in planned.waits_for:
            console.print(line, markup=False)

    @app.command("list", help=f"The {kind}s in force.\n\nExample: headwater {kind}s list")
    def list_all() -> None:
        settings = settings_now()
        catalog = read_catalog(settings)
        latest = catalog.latest
        paused = catalog.paused(latest, kind)
        more = extra(settings)
        table = Table(title=title, title_justify="left")
        for heading in (kind, "version", "owner", "applied", "state"):
            table.add_column(heading, overflow="fold")
        table.add_column(extra_column, justify="right")
        for each in catalog.of_kind(latest, kind):
            applied = shown_minute(each.applied_at)
            state = "paused" if each.name in paused else "in force"
            table.add_row(each.name, str(each.version), each.owner, applied, state, more.get(each.name, "–"))
        Console().print(table)

    @app.command("show", help=f"One {kind} as YAML.\n\nExample: headwater {kind}s show NAME")
    def show(name: Name) -> None:
        Console().print(Syntax(as_yaml(_required(settings_now(), kind, name).body), "yaml", background_color="default"))

    resting = f"Let a {kind} rest: nothing leaves, nothing is lost.\n\nExample: headwater {kind}s pause NAME"

    @app.command("pause", help=resting)
    def pause(name: Name, take_over: TakeOver = False) -> None:
        change(settings_now(), "pause", name, take_over)

    @app.command("resume", help=f"Let a paused {kind} go on.\n\nExample: headwater {kind}s resume NAME")
    def resume(name: Name, take_over: TakeOver = False) -> None:
        change(settings_now(), "resume", name, take_over)

    @app.command("remove", help=f"Take a {kind} out of force.\n\nExample: headwater {kind}s remove NAME")
    def remove(name: Name, take_over: TakeOver = False) -> None:
        change(settings_now(), "remove", name, take_over)

    return app


def _required(settings: Settings, kind: str, name: str) -> Definition:
    catalog = read_catalog(settings)
    found = catalog.in_force(catalog.latest, f"{kind}/{name}")
    if found is None:
        there = ", ".join(each.name for each in catalog.of_kind(catalog.latest, kind)) or "none"
        raise LookupFailed(f"There is no {kind} {name} in force.", "", f"there are: {there}")
    return found
