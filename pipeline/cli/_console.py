"""The console of the commands."""

from typing import Any

from rich import console


class Console(console.Console):
    """A console that shows what people called things as they wrote it: `user_id:a: expected` is no picture."""

    def __init__(self, **options: Any) -> None:
        super().__init__(emoji=False, **options)
