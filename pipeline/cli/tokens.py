"""`headwater tokens`: who may ask the API."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from pipeline import settings as settings_module
from pipeline.api.access import create_token, read_tokens, revoke_token
from pipeline.cli._console import Console, as_written

app = typer.Typer(no_args_is_help=True, help="Make, list and revoke tokens of the API.")

Name = Annotated[str, typer.Argument(help="Whose token it is: small letters, digits, `_`, `.`, `-`.")]


def _path() -> Path:
    settings = settings_module.load()
    return settings.api.tokens or settings.state_dir / "tokens.yaml"


@app.command()
def create(
    name: Name,
    scope: Annotated[list[str], typer.Option(help="What it may do; may be repeated.")],
    hide: Annotated[
        list[str] | None, typer.Option(help="A field it never sees, traits.email; may be repeated.")
    ] = None,
    hide_label: Annotated[
        list[str] | None, typer.Option(help="Nor any field that a contract gives this label; repeatable.")
    ] = None,
    per_second: Annotated[float, typer.Option(help="Requests a second.", min=0.01)] = 1_000,
) -> None:
    """Make a token. It is shown once; the file keeps its hash. A running API hears of it within a second.

    Example: headwater tokens create web --scope profiles:read --scope segments:read --hide traits.email
    """
    token = create_token(_path(), name, scope, hide or (), per_second, hide_label or ())
    typer.echo(token)
    typer.echo("Kept nowhere: put it where its user finds it. Next: headwater run api", err=True)


@app.command("list")
def list_all() -> None:
    """The tokens there are, without the tokens themselves.

    Example: headwater tokens list
    """
    table = Table(title="tokens", title_justify="left")
    for heading in ("name", "scopes", "hidden", "per second"):
        table.add_column(heading, overflow="fold")
    for token in read_tokens(_path()):
        table.add_row(
            as_written(token.name),
            " ".join(token.scopes),
            as_written(" ".join((*token.hide, *token.hide_labels))),
            f"{token.per_second:g}",
        )
    Console().print(table)


@app.command()
def revoke(name: Name) -> None:
    """Take a token back. A running API hears of it within a second.

    Example: headwater tokens revoke web
    """
    revoke_token(_path(), name)
    typer.echo(f"Revoked {name}.")
