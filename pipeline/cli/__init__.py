"""`headwater`: one module per command, named like it, holding either `command` (a function) or `app` (a group).

`headwater dead-letters` is pipeline/cli/dead_letters.py. A module that is there is a command; there is no list to keep.
"""

import logging
import os
import pkgutil
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.logging import RichHandler

from pipeline import __version__
from pipeline.cli._console import Console
from pipeline.compiled import refuse_what_is_stale
from pipeline.errors import HeadwaterError, SettingsError
from pipeline.settings import DEFAULT_FILE, ENV_PREFIX

_INTERRUPTED = 130
# What librdkafka says of one property, and of several that do not fit together, when a client is made.
_OF_A_PROPERTY = re.compile(
    r"configuration property|Failed to create (?:producer|consumer|admin client): ", re.IGNORECASE
)
_CLIENT_NOT_MADE = re.compile(r"^Failed to create [a-z ]+: ")


def command_names() -> list[str]:
    """The names of all commands."""
    return sorted(
        found.name.replace("_", "-") for found in pkgutil.iter_modules(__path__) if not found.name.startswith("_")
    )


def build(names: list[str] | None = None) -> typer.Typer:
    """The command line with these commands; all of them by default."""
    app = typer.Typer(
        name="headwater",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for name in command_names() if names is None else names:
        module: Any = import_module(f"{__name__}.{name.replace('-', '_')}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name)
        else:
            app.command(name)(module.command)
    return app


def main() -> None:
    """Run the command line of this process. An error people can act on ends it with its exit code, no traceback."""
    # Only the module of the command that is asked for is loaded; `--help` needs them all.
    known = command_names()
    first = next((argument for argument in sys.argv[1:] if argument in known), None)
    try:
        refuse_what_is_stale()
        # Within the block, for a command takes half a second to load: a Ctrl-C may come meanwhile.
        build([first] if first else None)()
    except HeadwaterError as error:
        show(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:
        # The reader of a pipe (head, jq) has enough: no message, and none from the interpreter when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        refused = _refused_by_client(error)
        if refused is None:
            raise
        show(refused)
        sys.exit(refused.exit_code)


def _refused_by_client(error: Exception) -> SettingsError | None:
    """What librdkafka says about a property that it does not know, or whose value it does not take, as of a file of
    certificates that is not there: it is a setting."""
    said = error.args[0] if error.args else None
    # Not by its class: most commands never load the client.
    if type(error).__name__ != "KafkaException" or not _OF_A_PROPERTY.search(text := str(said)):
        return None
    what = text.partition('str="')[2].removesuffix('"}').strip().replace('"', "`") or text
    return SettingsError(
        f"A property of the Kafka client cannot be used: {_CLIENT_NOT_MADE.sub('', what)}.",
        f"{ENV_PREFIX}KAFKA__…, or `kafka` in {DEFAULT_FILE}",
        "correct it; the configuration page of librdkafka lists all properties and their values",
    )


def show(error: HeadwaterError) -> None:
    """Tell an error to a person, on stderr: what, where, what to do."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"error: {error.what}", style="bold red", markup=False)
    if error.where:
        console.print(f"  where: {error.where}", markup=False)
    if error.what_to_do:
        console.print(f"  what to do: {error.what_to_do}", markup=False)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"headwater {__version__}")
        raise typer.Exit


def _options(
    config: Annotated[
        Path | None, typer.Option(help="Settings file; headwater.yaml of this folder by default.", show_default=False)
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is done.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """A real-time customer data platform that is nothing but a streaming pipeline on Kafka.

    Settings: HEADWATER_* from the environment, then headwater.yaml. `headwater up` runs everything on this machine.
    """
    if config is not None:
        os.environ["HEADWATER_CONFIG"] = str(config)
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[_handler(verbose)])
    for noisy in ("httpx", "httpx2", "httpcore", "urllib3", "docker", "testcontainers"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _handler(verbose: bool) -> logging.Handler:
    """For a person at a terminal, short; for a file, whole lines that can be searched."""
    handler: logging.Handler
    if sys.stderr.isatty():
        console = Console(stderr=True)
        handler = RichHandler(
            console=console, show_path=False, show_level=verbose, markup=False, log_time_format="%H:%M:%S"
        )
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    return handler
