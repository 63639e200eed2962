"""What was observed under one identifier, and the join that makes a profile of several.

    field           joins by
    traits          last writer by event time; at the same instant the greater canonical value
    consents        last writer by event time; at the same instant a denial
    totals          counts add, first is the minimum, last the maximum
    leaves          as the segments plan says; awake or at rest (pipeline/at_rest.py)
    ties            account: last writer by event time; at the same instant "left"
    proofs          as consents; of equal ones the greater text
    recent          the newest `RECENT_EVENTS`
    first_seen      minimum; last_seen and last_received: maximum

Every line is associative and commutative, and a fragment with nothing in it changes nothing. So the order of arrival
and of merges cannot be told from the result, and taking a fragment out is joining the others again.
"""

from collections.abc import Callable, Iterable, Sequence
from struct import Struct
from typing import Any

import msgspec

from pipeline.at_rest import rest
from pipeline.profile.proofs import join_proofs, prove
from pipeline.profile.state import Fragment, Leaves
from pipeline.profile.values import same_value
from pipeline.records import CHANNEL, Event

RECENT_EVENTS = 10
_RECENT = 28
_TIME_OFFSET = 1 << 63
_packed = Struct(">Q").pack

JoinLeaves = Callable[[Leaves, Leaves], Leaves]

_canonical = msgspec.json.Encoder(order="deterministic").encode
_CONSENTS: dict[bool | str, bool] = {True: True, False: False, "granted": True, "denied": False}
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Fragment)


def encode_fragment(fragment: Fragment) -> bytes:
    """The stored form of a fragment. Puts its leaves to rest."""
    rest(fragment.leaves)
    return _encoder.encode(fragment)


def decode_fragment(data: bytes) -> Fragment:
    """A fragment from its stored form."""
    return _decoder.decode(data)


def fold(fragment: Fragment, event: Event, message_hash: bytes, place: bytes) -> tuple[list[str], list[str]] | None:
    """Fold an event into everything but the leaves. Gives the names of the traits and of the consents whose value
    changed, or None where none did. `place` is where it stands in `events`: partition (4 bytes), offset (8)."""
    time = event.time
    total = fragment.totals.get(event.event)
    if total is None:
        fragment.totals[event.event] = [1, time, time]
    else:
        total[0] += 1
        if time > total[2]:
            total[2] = time
        elif time < total[1]:
            total[1] = time
    if time > fragment.last_seen:
        fragment.last_seen = time
    first_seen, received = fragment.first_seen, event.received
    if time < first_seen or not first_seen:
        fragment.first_seen = time
    if received > fragment.last_received:
        fragment.last_received = received

    recent = fragment.recent
    entry = _packed(time + _TIME_OFFSET) + message_hash + place
    if entry > recent[-_RECENT:]:
        fragment.recent = (recent + entry)[-RECENT_EVENTS * _RECENT :]
    else:
        fragment.recent = _newest(recent + entry)

    context, said = event.context, event.traits
    consent = context.get("consent") if context else None
    if not said and consent is None:
        return None
    traits = [name for name, value in said.items() if write(fragment.traits, name, time, value)]
    if consent is None:
        return (traits, []) if traits else None
    stated = _consents(consent)
    consents = [purpose for purpose, granted in stated if _consent(fragment.consents, purpose, time, granted)]
    if stated:
        prove(fragment.proofs, stated, time, consent)
    return (traits, consents) if traits or consents else None


def tie(fragment: Fragment, account: str, time: int, joined: bool) -> bool:
    """Fold what an event says of its person and an account; whether that is news."""
    there = fragment.ties.get(account)
    if there is not None and (time < there[0] or (time == there[0] and joined >= there[1])):
        return False
    fragment.ties[account] = (time, joined)
    return True


def join(one: Fragment, other: Fragment, join_leaves: JoinLeaves) -> Fragment:
    """The join of two fragments; shares nothing that `fold` changes with either."""
    traits = dict(one.traits)
    for name, (time, value) in other.traits.items():
        write(traits, name, time, value)
    consents = dict(one.consents)
    for purpose, (time, granted) in other.consents.items():
        _consent(consents, purpose, time, granted)
    ties = dict(one.ties)
    if other.ties:
        for account, (time, joined) in other.ties.items():
            there = ties.get(account)
            if there is None or time > there[0] or (time == there[0] and joined < there[1]):
                ties[account] = (time, joined)
    totals = {name: list(total) for name, total in one.totals.items()}
    for name, (count, first, last) in other.totals.items():
        total = totals.get(name)
        if total is None:
            totals[name] = [count, first, last]
        else:
            total[0] += count
            total[1] = min(total[1], first)
            total[2] = max(total[2], last)
    return Fragment(
        traits=traits,
        consents=consents,
        totals=totals,
        leaves=join_leaves(one.leaves, other.leaves),
        recent=_newest(one.recent + other.recent),
        first_seen=min(one.first_seen or other.first_seen, other.first_seen or one.first_seen),
        last_seen=max(one.last_seen, other.last_seen),
        last_received=max(one.last_received, other.last_received),
        ties=ties,
        proofs=join_proofs(one.proofs, other.proofs) if one.proofs or other.proofs else {},
    )


def forget_recent(fragment: Fragment, spans: Iterable[Sequence[int]]) -> bool:
    """Take those of the last events out that happened in one of these spans (first, last); whether any was there. Which
    event each was is not known here: those of others between the two go as well."""
    bounds = [tuple(_packed(time + _TIME_OFFSET) for time in span) for span in spans]
    recent = fragment.recent
    entries = [recent[at : at + _RECENT] for at in range(0, len(recent), _RECENT)]
    fragment.recent = b"".join(one for one in entries if not any(first <= one[:8] <= last for first, last in bounds))
    return len(fragment.recent) != len(recent)


def _newest(recent: bytes) -> bytes:
    entries = sorted(recent[at : at + _RECENT] for at in range(0, len(recent), _RECENT))
    return b"".join(entries[-RECENT_EVENTS:])


def join_all(fragments: Iterable[Fragment], join_leaves: JoinLeaves) -> Fragment:
    """The join of any number of fragments; shares nothing with them."""
    joined = Fragment()
    for fragment in fragments:
        joined = join(joined, fragment, join_leaves)
    return joined


def is_empty(fragment: Fragment | None) -> bool:
    """Whether nothing was ever folded into it."""
    return fragment is None or not fragment.last_received


def events_in(fragment: Fragment | None) -> int:
    """How many events were folded into it."""
    return sum(total[0] for total in fragment.totals.values()) if fragment is not None else 0


def pieces(fragment: Fragment, most_bytes: int) -> list[bytes]:
    """The stored form of a fragment as one piece, or as several disjoint ones of about `most_bytes` whose join it is.

    A single leaf, trait or total stays whole, however large.
    """
    whole = encode_fragment(fragment)  # the leaves are at rest from here on
    if len(whole) <= most_bytes:
        return [whole]

    # Each piece says when something was seen: one that travels alone must not pass for an empty fragment.
    def empty_piece() -> Fragment:
        return Fragment(
            first_seen=fragment.first_seen, last_seen=fragment.last_seen, last_received=fragment.last_received
        )

    rest = empty_piece()
    rest.recent = fragment.recent
    done: list[bytes] = []
    size = len(encode_fragment(rest))
    least = size
    for section in ("traits", "consents", "totals", "leaves", "ties", "proofs"):
        for name, value in getattr(fragment, section).items():
            entry_size = len(_encoder.encode((name, value)))
            if size + entry_size > most_bytes and size > least:
                done.append(encode_fragment(rest))
                rest = empty_piece()
                size = least = len(encode_fragment(rest))
            getattr(rest, section)[name] = value
            size += entry_size
    done.append(encode_fragment(rest))
    return done


def write(traits: dict[str, tuple[int, Any]], name: str, time: int, value: Any) -> bool:
    """Write a trait if it is newer; whether its value changed by it."""
    there = traits.get(name)
    if there is not None:
        if time < there[0]:
            return False
        if time == there[0] and _canonical(value) <= _canonical(there[1]):
            return False
    traits[name] = (time, value)
    if there is None:
        return value is not None
    return not same_value(there[1], value)


def _consent(consents: dict[str, tuple[int, bool]], purpose: str, time: int, granted: bool) -> bool:
    there = consents.get(purpose)
    if there is not None and (time < there[0] or (time == there[0] and granted >= there[1])):
        return False
    consents[purpose] = (time, granted)
    return there is None or there[1] is not granted


def stated_consents(event: Event) -> list[tuple[str, bool]]:
    """The (purpose, granted) that an event states."""
    return _consents(event.context.get("consent")) if event.context else []


def consents_anew(event: Event, erased_ms: int) -> bool:
    """Whether an event of somebody who was erased at `erased_ms` brings a consent that was given after that."""
    return event.time > erased_ms and any(
        granted and not purpose.startswith(CHANNEL) for purpose, granted in stated_consents(event)
    )


def _consents(stated: Any) -> list[tuple[str, bool]]:
    """The (purpose, granted) of an event's `context.consent`: `categoryPreferences`, or the purposes themselves, each
    true or false, `granted` or `denied`; and `channels` likewise. What is neither says nothing."""
    if type(stated) is not dict:
        return []
    found = _preferences(stated.get("categoryPreferences", stated))
    if "channels" in stated:
        found += [(CHANNEL + channel, granted) for channel, granted in _preferences(stated["channels"])]
    return found


def _preferences(stated: Any) -> list[tuple[str, bool]]:
    if type(stated) is not dict:
        return []
    return [
        (purpose, _CONSENTS[state])
        for purpose, state in stated.items()
        if isinstance(state, bool | str) and state in _CONSENTS
    ]
