"""What a campaign outside of the suite stands on: a broker and a workspace of its own, and this machine's servers."""

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from pipeline.broker import running_kafka
from pipeline.settings import Settings, load
from tests.contracts.servers import NotHereError

_Given = TypeVar("_Given")


@contextmanager
def workspace(prefix: str, partitions: int) -> Iterator[tuple[Settings, Path]]:
    """A workspace without topics on a new broker, and a folder; both are gone afterwards."""
    with running_kafka(load(), temporary=True) as kafka, tempfile.TemporaryDirectory() as folder:
        values = {
            "bootstrap_servers": kafka.bootstrap_servers,
            "prefix": prefix,
            "state_dir": Path(folder) / "state",
            "secret": "the secret of a test",
            "partitions": partitions,
        }
        yield Settings.model_validate(values), Path(folder)


def if_here(stack: ExitStack, server: AbstractContextManager[_Given]) -> _Given | None:
    """What a server gives that runs until the stack is closed; None, and a word, where it is not installed."""
    try:
        return stack.enter_context(server)
    except NotHereError as missing:
        print(missing)
        return None
