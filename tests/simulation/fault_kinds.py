"""What a fault that is put in on purpose is."""

from typing import Literal, NamedTuple


class Fault(NamedTuple):
    """`changes` are (text, replacement) in `module`, each text standing there once. `engine`: the worlds on one of the
    engines only, the pairs of definitions and histories, worlds whose rules change, or those of erasures; otherwise the
    worlds on both.
    `seeds`: where a rare one was seen, tried before all others."""

    name: str
    module: str
    changes: tuple[tuple[str, str], ...]
    engine: Literal["light", "real", "pairs", "rules", "erasures"] | None = None
    seeds: tuple[int, ...] = ()
