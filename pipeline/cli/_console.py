"""The console of the commands."""

from typing import Any

from rich import console
from rich.markup import escape
from rich.text import Text

# What steers a terminal, and what turns the direction in which it writes.
_STEERS = (*range(0x20), *range(0x7F, 0xA0), 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_SPELLED = {code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" for code in _STEERS if chr(code) not in "\n\t"}


class Console(console.Console):
    """A console that shows what people called things as they wrote it: `user_id:a: expected` is no picture, and a trait
    that anybody may send does not steer the terminal of who looks at it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """A text, or one with markup, as it is printed, or stands in a table."""
        return super().render_str(spelled(text), **options)


def spelled(text: str) -> str:
    """A text with its control characters spelled out."""
    return text.translate(_SPELLED)


def as_written(value: object) -> str:
    """Something that others wrote, in a line with markup or a cell of a table: its brackets are no markup."""
    return escape(str(value))
