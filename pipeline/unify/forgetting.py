"""What an erasure asks of destinations, said by the actors that are erased.

Whoever holds the person knows all of their names, and asks under all of them. Every other actor that was once a profile
of its own asks those who knew it as such, and tells them nothing but its own name.
"""

from pipeline.activation import Told, erasures, holders, holders_of_segments
from pipeline.identifiers import BURIED, split_identifier
from pipeline.records import Delivery, IdentifierPair
from pipeline.segments import HIDDEN
from pipeline.unify.forms import pairs_of
from pipeline.unify.news import accounts_of
from pipeline.unify.profile import Profile
from pipeline.unify.task import Task


def what_to_ask(task: Task, profile: Profile, request_id: str) -> list[Delivery]:
    """The deliveries that ask destinations to delete this profile, of an actor that still is what it was."""
    actor = profile.actor
    activation = profile.plan.activation
    # Every entry has raised the sequence.
    segments = {one for one, pair in pairs_of(actor).items() if pair.sequence and one[0] != HIDDEN}
    told = actor.told or Told()
    if actor.published:
        accounts = profile.plan.segments.accounts
        of_accounts = accounts.segments if accounts is not None and accounts_of(profile) else None
        asked = holders(activation, told, segments, of_accounts, profile.joined.consents)
        texts = [name for _, name in profile.names if name[:1] != BURIED]
    else:
        asked, texts = holders_of_segments(activation, told, segments), [actor.identifier]
    if not asked:
        return []
    births = profile.group.births if profile.group is not None else {}
    names = []
    for text in texts:
        birth = actor.erased if text == actor.identifier else births.get(text, 0)
        names.append((IdentifierPair(*split_identifier(text)), task.profile_id(text, birth)))
    subject = profile.key[1:].decode()
    return [
        delivery
        for destination in asked
        for delivery in erasures(activation, destination, request_id, subject, profile.profile_id, names, task.clock)
    ]
