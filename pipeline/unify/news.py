"""What happens to a person that their accounts have to know of, gathered while a record is dealt with.

what happened                                  the account is told
an event folded that one of its rules counts   the event
a hidden segment entered or left               that, with the instant
fragments came                                 their leaves, to be joined in
fragments went; another generation; new tie    everything, anew
identifiers came or went, and nothing else     the strongest of them
the tie is no more; the profile ended          gone, and who has the rest
"""

from collections.abc import Mapping, Set
from typing import TYPE_CHECKING, Any

from pipeline.accounts import belongs_to
from pipeline.records import Event
from pipeline.segments import AccountFacts
from pipeline.unify.actor import FOREVER, Actor, Belonging, Pair

if TYPE_CHECKING:
    from pipeline.unify.profile import Profile
    from pipeline.unify.publish import Moment
    from pipeline.unify.task import Task

# Events of a bot that names a new group each time would otherwise go to all of them.
MOST_ACCOUNTS = 100
# Shared by all profiles that have none, like every other empty thing of theirs: never changed in place.
NO_FACTS: Mapping[str, AccountFacts] = {}


class News:
    """What happened to a person at one moment, for their accounts."""

    __slots__ = ("entered", "event", "generation", "join", "left", "moment", "names")

    def __init__(self, moment: "Moment") -> None:
        self.moment = moment
        self.entered: dict[str, int] = {}
        self.left: list[str] = []
        self.join: dict[str, Any] | None = None
        self.event: Event | None = None
        self.generation = 0
        self.names = False


def accounts_of(profile: "Profile") -> list[str]:
    """The accounts the person belongs to, by name, sorted."""
    found: list[str] | None = profile.belongs
    if found is None:
        rules, ties = profile.plan.accounts, profile.joined.ties
        if not ties and not rules.asks_identifiers:
            found = []
        else:
            found = belongs_to(rules, ties, [name for _, name in profile.names])[:MOST_ACCOUNTS]
        profile.belongs = found
    return found


def facts_of(actor: Actor) -> Mapping[str, AccountFacts]:
    """What the person's accounts have told of themselves."""
    known = actor.belonging
    if known is None:
        return NO_FACTS
    return {name: AccountFacts(traits, frozenset(told)) for name, (_, traits, told) in known.regarded.items()}


def unanswered(profile: "Profile") -> Set[str]:
    """The segments that ask the person's accounts for something which one of them has not told yet."""
    since = profile.plan.segments.answered_since
    generation = answered_up_to(profile) if since else FOREVER
    return {segment for segment, first in since.items() if first > generation}


def answered_up_to(profile: "Profile") -> int:
    """The generation of which the person's accounts have all told what its rules ask for; FOREVER without accounts."""
    known = profile.actor.belonging or Belonging()
    # What was told before generations were told with it is taken for an answer.
    return min(
        (known.answered.get(name, FOREVER) if name in known.regarded else -1 for name in accounts_of(profile)),
        default=FOREVER,
    )


# ------------------------------------------------------------------------------------------------ what is to be told


def touched(task: "Task", profile: "Profile", moment: "Moment", whole: bool = False) -> None:
    """Something happened to the person that may concern accounts. `whole`: what they know of the person is void."""
    profile.moment = moment
    profile.whole = profile.whole or whole
    task.touched[profile.key] = profile


def heard(task: "Task", profile: "Profile", segment: str, pair: Pair, moment: "Moment") -> None:
    """A hidden segment was entered or left."""
    news = _news(task, profile, moment)
    if pair.member:
        news.entered[segment] = pair.at
    else:
        news.left.append(segment)


def acted(task: "Task", profile: "Profile", moment: "Moment", event: Event, generation: int) -> None:
    """An event was folded into leaves that accounts have."""
    news = _news(task, profile, moment)
    if news.event is not None:
        news = News(moment)
        profile.news = (*profile.news, news)
    news.event, news.generation = event, generation


def joined_in(task: "Task", profile: "Profile", moment: "Moment", leaves: dict[str, Any]) -> None:
    """A piece of a fragment was joined in."""
    known = task.account_leaves(profile.actor.generation)
    mine = {one: state for one, state in leaves.items() if one in known}
    touched(task, profile, moment)
    if mine:
        news = _news(task, profile, moment)
        if news.join is not None:
            news = News(moment)
            profile.news = (*profile.news, news)
        news.join = mine


def named(task: "Task", profile: "Profile", moment: "Moment") -> None:
    """Identifiers came or went: accounts show the strongest of whoever stands behind them."""
    touched(task, profile, moment)
    if profile.actor.belonging is not None:
        _news(task, profile, moment).names = True


def _news(task: "Task", profile: "Profile", moment: "Moment") -> News:
    touched(task, profile, moment)
    if profile.news:
        last: News = profile.news[-1]
        if last.moment.at == moment.at and last.moment.cause == moment.cause:
            return last
    news = News(moment)
    profile.news = (*profile.news, news)
    return news


def owed_by(actor: Actor, profile_id: str) -> dict[str, list[str]]:
    """What goes with a fragment of this profile: which accounts have to hear from whoever gets it."""
    known = actor.belonging
    if known is None:
        return {}
    owed = {name: list(origins) for name, origins in known.owing.items()}
    for name in known.tied:
        owed.setdefault(name, []).append(profile_id)
    return owed


def owe(task: "Task", profile: "Profile", owes: dict[str, list[str]], moment: "Moment") -> None:
    """A fragment came of a profile that accounts knew: they are told once all of it is here."""
    if not owes:
        return
    known = profile.actor.belonging
    if known is None:
        known = profile.actor.belonging = Belonging()
    for name, origins in owes.items():
        there = known.owing.setdefault(name, [])
        there += [one for one in origins if one not in there]
    touched(task, profile, moment)
