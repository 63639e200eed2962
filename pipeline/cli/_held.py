"""What a holder has of one person, or an account of its people, read from the changelog of `unify`: the state itself,
no copy made for looking."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pipeline.activation import Told
from pipeline.errors import LookupFailed
from pipeline.identifiers import Keys, identifier
from pipeline.plans import GenerationPlan, Plans
from pipeline.profile import Fragment, Proof, join_all, proof_of
from pipeline.profile.fragment import JoinLeaves
from pipeline.records import ProfileDocument
from pipeline.runtime.overlay import HEADER
from pipeline.segments import NO_SEGMENTS, PEOPLE, AccountFacts, SegmentsPlan
from pipeline.unify.account_state import Account, Person
from pipeline.unify.actor import META_KEY, Actor, Group, Meta
from pipeline.unify.forms import decode, live
from pipeline.unify.news import facts_of
from pipeline.unify.together import join_all as join_leaves_of_all

ReadPartition = Callable[[bytes], Mapping[bytes, bytes]]
"""Gives the present changelog of the partition that an actor's key belongs to: state key → header and value."""


class Facts(NamedTuple):
    """A profile as rules are judged on it."""

    profile_id: str
    leaves: dict[str, Any]
    traits: dict[str, tuple[int, Any]]
    consents: dict[str, tuple[int, bool]]
    totals: dict[str, list[int]]
    accounts: Mapping[str, AccountFacts]


class FactsOfAccount(NamedTuple):
    """An account as rules are judged on it. `people` counts those in each hidden segment, and all of them."""

    profile_id: str
    leaves: dict[str, Any]
    traits: dict[str, tuple[int, Any]]
    consents: dict[str, tuple[int, bool]]
    people: dict[str, int]


def held_profile(
    document: ProfileDocument, read: ReadPartition, keys: Keys, plans: Plans
) -> tuple[Facts, GenerationPlan]:
    """The facts of a profile, joined as its holder joins them, and the generation that its task evaluates.

    Raises:
        LookupFailed: the holder's state is not there under any identifier the profile shows.
    """
    stored, key, actor = _holder(document, read, keys)
    meta: Meta = _value(stored, META_KEY) or Meta()
    joined = _joined(stored, key, actor, keys, _leaves_up_to(plans, actor.generation, meta.newest).join)
    told = facts_of(actor)
    facts = Facts(document.profile_id, joined.leaves, joined.traits, joined.consents, joined.totals, told)
    return facts, plans(meta.generation)


def held_account(
    document: ProfileDocument, read: ReadPartition, keys: Keys, plans: Plans
) -> tuple[FactsOfAccount, GenerationPlan]:
    """The facts of an account, of all its people together, and the generation that it is judged under.

    Raises:
        LookupFailed: its state is not there.
    """
    [pair] = document.identifiers
    key = keys.actor(identifier(pair.namespace, pair.value))
    stored = read(key)
    account: Account | None = _value(stored, b"c" + key)
    if account is None:
        raise _not_found(document)
    plan = plans(account.generation)
    people: list[Person] = [_value(stored, each) for each in stored if each.startswith(b"p" + key)]
    counts = {PEOPLE: len(people)}
    for person in people:
        for hidden in person.members:
            counts[hidden] = counts.get(hidden, 0) + 1
    leaves = join_leaves_of_all(plan.segments.accounts or NO_SEGMENTS, (person.leaves for person in people))
    return FactsOfAccount(document.profile_id, leaves, account.traits, {}, counts), plan


class HeldTold(NamedTuple):
    """What destinations were told of a profile, the generation that its holder goes by, and the proof of each word on a
    purpose that has one."""

    told: Told
    generation: int
    proofs: dict[str, Proof]


def held_told(document: ProfileDocument, read: ReadPartition, keys: Keys) -> HeldTold:
    """What a holder knows of destinations and consents. Raises LookupFailed."""
    stored, key, actor = _holder(document, read, keys)
    joined = _joined(stored, key, actor, keys, lambda one, other: {})
    found = {purpose: proof_of(joined.proofs, purpose, word) for purpose, word in joined.consents.items()}
    return HeldTold(actor.told or Told(), actor.generation, {one: proof for one, proof in found.items() if proof})


def _holder(document: ProfileDocument, read: ReadPartition, keys: Keys) -> tuple[Mapping[bytes, bytes], bytes, Actor]:
    for pair in document.identifiers:
        name = identifier(pair.namespace, pair.value)
        key = keys.actor(name)
        stored = read(key)
        actor: Actor | None = _value(stored, b"a" + key)
        if actor is not None and keys.profile_id(name, actor.erased) == document.profile_id:
            return stored, key, actor
    raise _not_found(document)


def _not_found(document: ProfileDocument) -> LookupFailed:
    return LookupFailed(
        f"The state of profile {document.profile_id} was not found.",
        "unify-changelog",
        "see that HEADWATER_SECRET (or the state folder) is that of the workspace; or look again in a moment",
    )


def _value(stored: Mapping[bytes, bytes], key: bytes) -> Any:
    data = stored.get(key)
    return None if data is None else decode(key, data[HEADER:])


def _joined(stored: Mapping[bytes, bytes], key: bytes, actor: Actor, keys: Keys, join_leaves: JoinLeaves) -> Fragment:
    group: Group | None = _value(stored, b"h" + key) if actor.spilled else actor.group
    if group is None:
        return actor.own if actor.own is not None else Fragment()
    parts = [
        actor.own if name == actor.identifier else _value(stored, b"f" + key + keys.actor(name))
        for name in live(group, actor)
    ]
    return join_all((part for part in parts if part is not None), join_leaves)


def _leaves_up_to(plans: Plans, generation: int, newest: int) -> SegmentsPlan:
    """The leaves of a generation and of all later ones that events already fold into."""
    plan = plans(generation).segments
    for later in range(generation + 1, newest + 1):
        plan = plan.with_leaves_of(plans(later).segments)
    return plan
