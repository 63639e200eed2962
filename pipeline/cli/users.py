"""`headwater users`: who may sign in to the room for people."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from pipeline import settings as settings_module
from pipeline.api.access import create_token, read_tokens, revoke_token
from pipeline.cli._console import Console, as_written
from pipeline.errors import InputError
from pipeline.settings import Settings
from pipeline.ui.users import ROLES, SCOPES, Role, make_password, read_users, seal_user, token_name, write_users

app = typer.Typer(no_args_is_help=True, help="Make, list and remove users of `headwater run ui`.")

Name = Annotated[str, typer.Argument(help="Who signs in: small letters, digits, `_`, `.`, `-`.")]
_PER_SECOND = 200


def _tokens(settings: Settings) -> Path:
    return settings.api.tokens or settings.state_dir / "tokens.yaml"


def _users(settings: Settings) -> Path:
    return settings.ui.users or settings.state_dir / "users.yaml"


@app.command()
def create(
    name: Name,
    role: Annotated[str, typer.Option(help=f"One of {', '.join(ROLES)}: what they may do.")],
    password: Annotated[
        str | None, typer.Option(envvar="HEADWATER_USER_PASSWORD", help="Theirs; one is made if there is none.")
    ] = None,
    hide: Annotated[
        list[str] | None, typer.Option(help="A field they never see, traits.email; may be repeated.")
    ] = None,
    hide_label: Annotated[
        list[str] | None, typer.Option(help="Nor any field that a contract gives this label; repeatable.")
    ] = None,
) -> None:
    """Make a user, with a token of the API of their own. The password is shown once; no file has it.

    Example: headwater users create ada --role editor
    """
    settings = settings_module.load()
    known: Role | None = next((one for one in ROLES if one == role), None)
    if known is None:
        raise InputError(f"There is no role {role}.", "--role", f"roles are {', '.join(ROLES)}")
    users = read_users(_users(settings))
    if any(user.name == name for user in users):
        raise InputError(f"There is a user {name} already.", str(_users(settings)), "remove them first")
    chosen = password or make_password()
    seal_user(name, known, "", chosen)  # what is wrong with the name or the password is told before a token is made
    token = create_token(_tokens(settings), token_name(name), SCOPES[known], hide or (), _PER_SECOND, hide_label or ())
    write_users(_users(settings), [*users, seal_user(name, known, token, chosen)])
    if password is None:
        typer.echo(chosen)
        typer.echo("The password is kept nowhere: hand it over. Next: headwater run ui", err=True)
    else:
        typer.echo(f"{name} can sign in as {known}. Next: headwater run ui", err=True)


@app.command("list")
def list_all() -> None:
    """The users there are.

    Example: headwater users list
    """
    table = Table(title="users", title_justify="left")
    table.add_column("name")
    table.add_column("role")
    for user in read_users(_users(settings_module.load())):
        table.add_row(as_written(user.name), user.role)
    Console().print(table)


@app.command()
def remove(name: Name) -> None:
    """Take a user, and their token, away. The API refuses them within a second.

    Example: headwater users remove ada
    """
    settings = settings_module.load()
    users = read_users(_users(settings))
    kept = [user for user in users if user.name != name]
    if len(kept) == len(users):
        there = ", ".join(user.name for user in users) or "none"
        raise InputError(f"There is no user {name}.", str(_users(settings)), f"there are: {there}")
    write_users(_users(settings), kept)
    if any(token.name == token_name(name) for token in read_tokens(_tokens(settings))):
        revoke_token(_tokens(settings), token_name(name))
    typer.echo(f"Removed {name}.")
