"""What a unify task keeps of accounts, and where.

    key                                        value
    "c" account's actor                        Account: its own traits and memberships
    "p" account's actor, person's actor        Person: what one of its people brings to it

What all people bring together is never stored: it is a cache, made of the people once and then changed with each
message. So an event writes two small records, however many people an account has.
"""

from typing import Any

import msgspec
from msgspec import Struct

from pipeline.unify.actor import DECODERS, VERSION, Pair


class Account(Struct, array_like=True):
    """The actor of an account.

    `named`: a group event named it. `pairs`: its memberships, as those of a person. `revision` counts what it told its
    people, `told_traits` and `told_segments` are the newest of that, and `told_generation` is the one whose rules asked
    for it. `alerted`: alert → when it was last said.
    """

    version: int
    identifier: str
    generation: int = 0
    settled: int = 0
    wake: int = 0
    published: bool = False
    named: bool = False
    traits: dict[str, tuple[int, Any]] = {}
    pairs: dict[str, Pair] = {}
    revision: int = 0
    told_traits: dict[str, tuple[int, Any]] = {}
    told_segments: list[str] = []
    alerted: dict[str, int] = {}
    told_generation: int = -1


class Person(Struct, array_like=True):
    """One of an account's people: leaves over all of their events, the hidden segments they are in since when.

    `moved_to`: the profile has ended and this one has what it brought; it counts here until that one says so, or until
    the clock reaches `until`.
    """

    version: int
    person: str
    profile_id: str
    leaves: dict[str, Any] = {}
    members: dict[str, int] = {}
    identifiers: list[str] = []
    moved_to: str = ""
    until: int = 0


def new_account(identifier: str, generation: int) -> Account:
    """An account of which nothing is known."""
    return Account(VERSION, identifier, generation=generation)


for _prefix, _kind in ((b"c", Account), (b"p", Person)):
    DECODERS[_prefix[0]] = msgspec.msgpack.Decoder(_kind).decode
