"""What a unify task keeps (actor.py) as it is read and written, and what is asked of it with every event.

The structs themselves stand in a module that is not compiled, for msgspec reads the types of their fields.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from pipeline.at_rest import rest
from pipeline.identifiers import split_identifier
from pipeline.records import IdentifierPair, UnfollowedLink
from pipeline.unify.actor import DECODERS, SHOWN_LINKS, VERSION, Actor, Group, Held, Pair
from pipeline.unify.writer import Writer

_encode = msgspec.msgpack.Encoder().encode


def belongs_elsewhere(actor: Actor) -> bool:
    """Whether this profile is to be a part of another: by its own identifier, or by what it has heard of others."""
    return (bool(actor.name) and actor.name != actor.identifier) or actor.epoch < actor.hold_epoch


def waits(actor: Actor) -> bool:
    """Whether a change waits for what is on its way, or the accounts wait to be told of it."""
    return actor.held or (actor.belonging is not None and actor.belonging.owes)


def shown_links(held: Held | None) -> list[UnfollowedLink]:
    """What a profile shows of the links that are not followed, newest first."""
    if held is None:
        return []
    found = [(link, fragment) for fragment, (_, links) in held.fragments.items() for link in links]
    found.sort(key=lambda one: (-one[0].first, one[1], one[0].other))
    return [
        UnfollowedLink(
            IdentifierPair(*split_identifier(fragment)),
            IdentifierPair(*split_identifier(link.other)),
            link.reason,
            link.first,
        )
        for link, fragment in found[:SHOWN_LINKS]
    ]


def live(group: Group, actor: Actor) -> Iterable[str]:
    """The fragments that make the profile: what came before the person was erased only waits to be called back."""
    if not actor.erased:
        return list(group.present)
    return [name for name, (_, epoch) in group.present.items() if epoch >= actor.erased]


_decode_pairs = msgspec.msgpack.Decoder(dict[str, Pair]).decode


def pairs_of(actor: Actor) -> dict[str, Pair]:
    """How the actor's profile stands with each segment; may be changed in place, if the actor is put."""
    pairs = actor.pairs
    if isinstance(pairs, bytes):
        pairs = actor.pairs = _decode_pairs(pairs) if pairs else {}
    return pairs


def encode(value: Any, writer: Writer) -> bytes:
    """The stored form of a value. Puts leaves, and the pairs of actors, to rest."""
    if value.__class__ is Actor:
        if value.pairs.__class__ is dict:
            value.pairs = _encode(value.pairs) if value.pairs else b""
        if value.own is not None:
            rest(value.own.leaves)
    else:
        leaves = getattr(value, "leaves", None)
        if leaves is not None:
            rest(leaves)
    return writer.kept(value)


def decode(key: bytes, data: bytes) -> Any:
    """The value of a stored form. Raises ValueError for a version this release does not read."""
    value = DECODERS[key[0]](data)
    if value.version != VERSION:
        raise ValueError(f"unify state {key!r} has version {value.version}; this release reads {VERSION}")
    return value
