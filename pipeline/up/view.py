"""The live view: one screen, drawn from a picture."""

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from pipeline.shown_times import shown_second
from pipeline.up.picture import Picture


def screen(picture: Picture, segments: list[str], status: str, calls: int | None) -> RenderableType:
    """The whole screen."""
    figures = Text.assemble(
        (f"{picture.rate():,.0f}", "bold cyan"),
        " events/s   ",
        (f"{len(picture.profiles):,}", "bold"),
        " profile   waiting: " if len(picture.profiles) == 1 else " profiles   waiting: ",
        ", ".join(f"{role} {lag:,}" for role, lag in picture.waiting().items()) or "…",
        f"   dead letters {picture.dead_letters:,}",
        f"   webhook calls {calls:,}" if calls is not None else "",
    )
    changes = Table(box=None, show_header=False, pad_edge=False, expand=True)
    for change in reversed(picture.changes):
        sign = "[green]→[/]" if change.change == "entered" else "[yellow]←[/]"
        who = change.identifiers[0] if change.identifiers else None
        named = f"{who.namespace}:{who.value}" if who else change.profile_id
        cause = f"{change.cause}, goes on" if change.continues else change.cause
        changes.add_row(shown_second(change.at), sign, f"[bold]{escape(change.segment)}[/]", escape(named), cause)
    return Group(
        Panel(Group(Text(status), figures), title="headwater", title_align="left"),
        sizes_table(picture, segments),
        Panel(changes, title="the last segment changes", title_align="left"),
    )


def sizes_table(picture: Picture, segments: list[str]) -> Table:
    """Segments and their sizes."""
    table = Table(title="segments", title_justify="left")
    table.add_column("segment")
    table.add_column("members", justify="right")
    table.add_column("of all profiles", justify="right")
    total = len(picture.profiles)
    for name, count in picture.sizes(segments):
        table.add_row(escape(name), f"{count:,}", f"{count / total:.1%}" if total else "–")
    return table


def plain_line(picture: Picture, status: str, calls: int | None) -> str:
    """The same in one line, where there is no terminal."""
    lags = ", ".join(f"{role} {lag:,}" for role, lag in picture.waiting().items())
    called = f", {calls:,} webhook calls" if calls is not None else ""
    profiles = _counted(len(picture.profiles), "profile")
    return f"{status}: {picture.rate():,.0f} events/s, {profiles}{called}, waiting: {lags or '…'}"


def print_end(console: Console, picture: Picture, segments: list[str], calls: int | None) -> None:
    """The table that a finished run leaves behind."""
    console.print(sizes_table(picture, segments))
    called = f", {calls:,} signed webhook calls" if calls is not None else ""
    letters = _counted(picture.dead_letters, "dead letter")
    console.print(f"{_counted(len(picture.profiles), 'profile')}, {letters}{called}")


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
