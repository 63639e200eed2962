"""The faults that are put in on purpose: what is broken, where, and how."""

from typing import Literal, NamedTuple


class Fault(NamedTuple):
    """`changes` are (text, replacement) in `module`, each text standing there once."""

    name: str
    module: str
    changes: tuple[tuple[str, str], ...]
    engine: Literal["light", "real"] | None = None


FAULTS: tuple[Fault, ...] = ()
