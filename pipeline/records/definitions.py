"""`definitions`: what people wrote, by version, and which versions are in force."""

from typing import Any, Literal

from msgspec import Struct

Kind = Literal[
    "segment",
    "identity",
    "contract",
    "cleaning",
    "reference",
    "source",
    "destination",
    "trait",
    "accounts",
    "alert",
    "consent",
]


class Definition(Struct, omit_defaults=True):
    """One version of something people wrote. The key is "kind/name/version"; `body` is the validated definition."""

    kind: Kind
    name: str
    version: int
    body: dict[str, Any]
    owner: str = "file"
    applied_at: int = 0
    applied_by: str = ""


class Generation(Struct, omit_defaults=True):
    """The whole set of definitions in force; the key is "generation/number".

    `members` maps "kind/name" to the version in force, `leaves` the id of each leaf to the generation since which it
    has been there without a break, `paused` lists "kind/name".
    """

    number: int
    members: dict[str, int]
    leaves: dict[str, int] = {}
    paused: list[str] = []
    applied_at: int = 0
