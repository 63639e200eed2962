"""The actor of an account: it keeps what each of its people brings, and judges its own segments on all of it.

    message          does
    Belongs          one person: everything anew, or what is new; gone; what their group event says of the account
    Named            traits, from a group event
    Regard(On)       to its people, when what their rules ask for has changed
    PeopleSwept      when every partition has taken its people along to a generation, accounts follow

A message first settles what time alone has changed, then changes the facts, then judges at the clock. An account is
there while a group event has named it or somebody belongs to it.
"""

from collections.abc import Iterable
from typing import Any

from pipeline.profile import decode_fragment
from pipeline.records import AccountsSweep, Belongs, Named, PeopleSwept, Regard, RegardOn, Takeover, encode
from pipeline.segments import PEOPLE, segment_of
from pipeline.unify import account_publish as publish
from pipeline.unify import belonging, memberships
from pipeline.unify.account_hand import AtHand, at_hand, choose_generation, place_of
from pipeline.unify.account_state import Account, Person, new_account
from pipeline.unify.actor import FOREVER, VERSION, Pair
from pipeline.unify.publish import Moment
from pipeline.unify.task import Task

# What a person brought waits for the profile that has it now, which says so in milliseconds; a message that never
# comes, because that one was erased, must not keep it for ever.
MOVING_MS = 10_000
TOLD_AT_ONCE = 200
ACCOUNTS_PER_SWEEP = 200
_BUCKETS = tuple(f"{number:02x}".encode() for number in range(256))


def on_message(task: Task, message: Any) -> None:
    """A message of `links` that has to do with accounts."""
    kind = type(message)
    if kind is Belongs:
        on_belongs(task, message)
    elif kind is Regard:
        belonging.on_regard(task, message)
    elif kind is Named:
        on_named(task, message)
    elif kind is RegardOn:
        on_regard_on(task, message)
    elif kind is PeopleSwept:
        on_people_swept(task, message)
    elif kind is AccountsSweep:
        on_sweep(task, message)


# -------------------------------------------------------------------------------------------------- what people bring


def on_belongs(task: Task, message: Belongs) -> None:
    """News of one of the account's people."""
    task.see_generation(message.newest)
    key = b"c" + task.keys.actor(message.account)
    hand = _opened(task, key, message.account)
    person_key = b"p" + key[1:] + task.keys.actor(message.person)
    change = _Change(hand)
    for origin in message.origins:
        moving = hand.moving.get(origin)
        if moving is not None and (moving[0] != person_key or not message.whole):
            change.remove(task, moving[0])
    person: Person | None = task.state.get(person_key) if message.person else None
    # Whoever ended has forgotten what the account told them.
    is_new = person is None or bool(person.moved_to)
    if message.gone:
        if person is not None and message.moved_to:
            person.moved_to, person.until = message.moved_to, task.clock + MOVING_MS
            hand.moving[person.profile_id] = (person_key, person.until)
            task.state.put(person_key, person)
        elif person is not None:
            change.remove(task, person_key)
    elif message.whole:
        change.replace(task, person_key, person, message)
    elif person is not None:
        change.add(task, person_key, person, message)
    elif message.person and not message.origins:
        task.count("news_of_strangers")
    if message.gone and message.cause == "erase":
        task.state.scrub(person_key)
    if message.named is not None:
        change.name(message.named)
    moment = belonging.moment_of(task, message)
    _judge(task, hand, change, moment)
    if message.whole and is_new and hand.account.revision:
        _tell_one(task, hand, message.person, moment)


def on_named(task: Task, message: Named) -> None:
    """A group event named the account, and gave it traits."""
    key = b"c" + task.keys.actor(message.account)
    hand = _opened(task, key, message.account)
    change = _Change(hand)
    change.name(message)
    _judge(task, hand, change, Moment("event", message.at, message.evidence))


class _Change:
    """What a message changes of an account's facts: leaves taken out and put in, names of counts and of traits."""

    def __init__(self, hand: AtHand) -> None:
        self.hand = hand
        self.people = hand.people.get(PEOPLE, 0)
        self.leaf_ids: set[str] = set()
        self.names: set[str] = set()
        self.traits: list[str] = []
        self._before: dict[bytes, dict[str, Any]] = {}
        self._after: dict[bytes, dict[str, Any]] = {}
        self._number: dict[bytes, int] = {}

    def remove(self, task: Task, person_key: bytes) -> None:
        """Somebody is no more among the people."""
        person: Person | None = task.state.get(person_key)
        self.hand.moving = {one: held for one, held in self.hand.moving.items() if held[0] != person_key}
        if person is None:
            return
        place = place_of(person_key)
        self._before[place], self._number[place] = person.leaves, -1
        self.names.update(self.hand.forget_members(person.person, person.members))
        self.hand.people[PEOPLE] -= 1
        task.state.delete(person_key)

    def replace(self, task: Task, person_key: bytes, before: Person | None, message: Belongs) -> None:
        """All there is of one person, anew."""
        hand = self.hand
        leaves = decode_fragment(message.state).leaves if message.state is not None else {}
        place = place_of(person_key)
        if before is None:
            self._number[place] = 1
            hand.people[PEOPLE] = hand.people.get(PEOPLE, 0) + 1
        else:
            hand.moving.pop(before.profile_id, None)
            # What only the generation in force here knows is not kept by people that are ahead of it.
            known = task.account_leaves(message.generation, message.newest)
            for leaf_id, state in before.leaves.items():
                if leaf_id in hand.rules.leaves and leaf_id not in known:
                    leaves.setdefault(leaf_id, state)
            self._before[place] = before.leaves
            self.names.update(hand.forget_members(before.person, before.members))
        self._after[place] = leaves
        self.names.update(hand.know_members(message.person, message.members))
        person = Person(
            VERSION, message.person, message.profile_id, leaves, dict(message.members), list(message.identifiers)
        )
        task.state.put(person_key, person)

    def add(self, task: Task, person_key: bytes, person: Person, message: Belongs) -> None:
        """Something more of one person."""
        hand = self.hand
        if message.state is not None:
            piece = decode_fragment(message.state).leaves
            join = hand.folding(task, hand.account.generation, task.meta.newest).join
            person.leaves = join(person.leaves, piece)
            self._after[place_of(person_key)] = piece
        if message.event is not None:
            self.leaf_ids.update(hand.fold(task, person_key, person, message.event, message.generation))
        if message.identifiers:
            person.identifiers = list(message.identifiers)
        for segment, since in message.entered.items():
            person.members[segment] = since
            self.names.update(hand.know_members(person.person, {segment: since}))
        for segment in message.left:
            person.members.pop(segment, None)
            self.names.update(hand.forget_members(person.person, (segment,)))
        task.state.put(person_key, person)

    def name(self, message: Named) -> None:
        """A group event named the account: said twice it is as if said once."""
        account = self.hand.account
        account.named = True
        self.traits = publish.write_traits(account.traits, message.traits, message.at)

    def settle_leaves(self, task: Task) -> None:
        """Bring what all people did together up to date."""
        together = self.hand.together
        if self._before or self._after:
            self.leaf_ids |= together.change(task.state, self._before, self._after)
        for place, number in self._number.items():
            together.count(task.state, place, number)


# ------------------------------------------------------------------------------------------------------------ judging


def _at_hand(task: Task, key: bytes, identifier: str) -> AtHand:
    account: Account | None = task.state.get(key)
    if account is None:
        account = new_account(identifier, task.meta.accounts)
    return at_hand(task, key, account)


def _opened(task: Task, key: bytes, identifier: str) -> AtHand:
    hand = _at_hand(task, key, identifier)
    settle(task, hand)
    return hand


def _judge(task: Task, hand: AtHand, change: _Change, moment: Moment) -> None:
    """The facts have changed: begin or end the account, enter and leave its segments, tell its people. Puts it."""
    account = hand.account
    change.settle_leaves(task)
    people = hand.people.get(PEOPLE, 0)
    exists = account.named or people > 0
    if people != change.people:
        change.names.add(PEOPLE)
    if exists and not account.published:
        begin(task, hand, moment)
    elif account.published and not exists:
        publish.end(task, hand, Moment("expired", moment.at, moment.evidence))
    elif exists:
        assert hand.standing is not None
        flips = hand.rules.update(
            hand.standing, hand, task.clock, sorted(change.leaf_ids), sorted([*change.names, *change.traits])
        )
        paused = hand.rules.paused
        done = [
            one.segment
            for one in sorted(flips, key=segment_of)
            if one.segment not in paused
            and publish.segment_change(task, hand, one.segment, one.entered, moment, one.approximate)
        ]
        publish.say(task, hand, moment, done, change.traits, people != change.people)
    finish(task, hand, moment)


def begin(task: Task, hand: AtHand, moment: Moment) -> None:
    """The account is there."""
    account = hand.account
    account.published = True
    hand.standing = hand.rules.begin(hand, task.clock)
    compare(task, hand, moment)
    publish.begin(task, hand, moment)


def compare(task: Task, hand: AtHand, moment: Moment, among: Iterable[str] | None = None) -> list[str]:
    """Enter and leave until memberships are those of the standing. Gives the segments that changed."""
    assert hand.standing is not None
    standing = hand.standing.members
    members = {segment for segment, pair in hand.account.pairs.items() if pair.member}
    different = (standing ^ members) - hand.rules.paused
    if among is not None:
        different &= set(among)
    return [one for one in sorted(different) if publish.segment_change(task, hand, one, one in standing, moment)]


def finish(task: Task, hand: AtHand, moment: Moment) -> None:
    """Keep the account, with its deadline, and tell its people what has changed of what they ask."""
    account = hand.account
    account.settled = task.clock
    _tell_people(task, hand, moment)
    deadline = hand.deadline
    if hand.standing is not None and (deadline < account.wake or (account.wake <= task.clock and deadline < FOREVER)):
        # As for people: the index says the same whatever was at hand.
        hand.rules.tighten(hand.standing, hand, task.clock)
        deadline = hand.deadline
    if deadline < account.wake or account.wake <= task.clock:
        account.wake = max(deadline, task.clock + 1) if deadline < FOREVER else 0
    task.state.put(hand.key, account, account.wake)


# --------------------------------------------------------------------------------------------------------------- time


def on_due(task: Task, key: bytes, account: Account) -> None:
    """The account's deadline has come."""
    hand = at_hand(task, key, account)
    settle(task, hand)
    if account.published:
        # It may have been judged anew by other data of time zones, and its time have come before it was last settled.
        moment = Moment("definition", task.clock)
        publish.say(task, hand, moment, compare(task, hand, moment), (), False)
    finish(task, hand, Moment("timer", task.clock))


def settle(task: Task, hand: AtHand) -> None:
    """Bring an account up to the clock: its generation, and what time alone has changed."""
    not_before = 0
    if hand.account.generation != task.meta.accounts:
        # As of the change, however late a sweep gets here: nothing of the new rules happens before that, and what has
        # come due since then has its own instant.
        clock = task.clock
        task.clock = not_before = min(clock, task.meta.accounts_switched)
        _pass_time(task, hand, not_before)
        _change_generation(task, hand)
        _tell_people(task, hand, Moment("backfill", task.clock))
        task.clock = clock
    _pass_time(task, hand, task.clock, not_before)


def _pass_time(task: Task, hand: AtHand, until: int, not_before: int = 0) -> None:
    clock = task.clock
    while True:
        due = min((held[1] for held in hand.moving.values()), default=FOREVER)
        if due > until:
            break
        # Whoever should have said that they have it never did.
        at = max(due, not_before)
        # As of then: what time alone changes after it is still to come, and what it changed before was decided before.
        task.clock = at
        _timers(task, hand, at)
        change = _Change(hand)
        for person_key, moved_until in list(hand.moving.values()):
            if moved_until == due:
                change.remove(task, person_key)
        _judge(task, hand, change, Moment("merge", at))
        task.clock = clock
    _timers(task, hand, until)


def _timers(task: Task, hand: AtHand, until: int) -> None:
    standing = hand.standing
    if standing is None or not hand.account.published:
        return
    while standing.deadline and standing.deadline <= until:
        at = standing.deadline
        moment = Moment("timer", at)
        for _, flips in hand.rules.settle(standing, hand, at):
            done = [
                one.segment
                for one in sorted(flips, key=segment_of)
                if one.segment not in hand.rules.paused
                and publish.segment_change(task, hand, one.segment, one.entered, moment, one.approximate)
            ]
            publish.say(task, hand, moment, done, (), False)
        _tell_people(task, hand, moment)


# -------------------------------------------------------------------------------------------------------- generations


def on_people_swept(task: Task, message: PeopleSwept) -> None:
    """A partition has taken its people along; when all have, everything that accounts need of them is here."""
    meta = task.change_meta()
    generation = message.generation
    if generation <= meta.accounts:
        return
    senders = meta.people_swept.get(generation, [])
    if message.partition not in senders:
        senders = [*senders, message.partition]
    meta.people_swept = {**meta.people_swept, generation: senders}
    if len(senders) < task.partitions:
        return
    meta.accounts, meta.accounts_switched = generation, task.clock
    meta.people_swept = {one: who for one, who in meta.people_swept.items() if one > generation}
    task.see_generation(generation)
    task.out.log("links", None, encode(AccountsSweep(generation=generation, clock=task.clock)), task.partition)


def on_sweep(task: Task, message: AccountsSweep) -> None:
    """Take the next accounts along to the generation."""
    if message.generation != task.meta.accounts:
        return
    done = 0
    for bucket in _BUCKETS:
        prefix = b"c" + bucket
        if prefix < message.after[: len(prefix)]:
            continue
        for key, account in [(key, one) for key, one in task.state.scan(prefix) if key > message.after]:
            if account.generation == message.generation:
                continue
            # By `get`, for it will be changed: what a scan gives may be a copy.
            kept = task.state.get(key)
            assert isinstance(kept, Account)
            hand = at_hand(task, key, kept)
            settle(task, hand)
            finish(task, hand, Moment("backfill", task.clock))
            done += 1
            if done >= ACCOUNTS_PER_SWEEP:
                on = AccountsSweep(generation=message.generation, clock=task.clock, after=key)
                task.out.log("links", None, encode(on), task.partition)
                return


def _change_generation(task: Task, hand: AtHand) -> None:
    account = hand.account
    before = publish.document(hand) if account.published else None
    paused = hand.rules.paused
    account.generation = task.meta.accounts
    choose_generation(task, hand)
    if before is None:
        return
    moment = Moment("backfill", task.clock)
    known = hand.rules.segments
    for segment in sorted(one for one, pair in account.pairs.items() if pair.member and one not in known):
        publish.segment_change(task, hand, segment, False, Moment("definition", task.clock))
    hand.standing = hand.rules.begin(hand, task.clock)
    resumed = paused - hand.rules.paused
    if resumed:
        compare(task, hand, Moment("definition", task.clock), resumed)
    compare(task, hand, moment)
    publish.say_difference(task, hand, before, moment)


# ----------------------------------------------------------------------------------------------- what people are told


def on_takeover(task: Task, message: Takeover) -> None:
    """Subscribers come over from another workspace: go on where it stopped."""
    hand = _at_hand(task, b"c" + task.keys.actor(message.identifier), message.identifier)
    account, moment = hand.account, Moment("backfill", task.clock)
    # Before the clock is looked at: see takeover.py.
    taken_over = memberships.go_on(account.pairs, {segment: Pair(*one) for segment, one in message.told.items()})
    settle(task, hand)
    if account.published:
        changed = compare(task, hand, moment)
        kept = memberships.untold(account.pairs, taken_over)
        for segment in kept:
            memberships.write_row(task, publish.ACCOUNT, hand.profile_id, segment, account.pairs[segment])
        publish.say(task, hand, moment, [*changed, *kept], (), False)
    else:
        for segment in sorted(one for one, pair in account.pairs.items() if pair.member):
            publish.segment_change(task, hand, segment, False, moment)
    finish(task, hand, moment)


def _tell_people(task: Task, hand: AtHand, moment: Moment) -> None:
    """Tell all people, if what their rules ask for has changed."""
    account = hand.account
    plan = task.plans(account.generation).segments
    if not plan.told_traits and not plan.told_segments and not account.revision:
        return
    traits = {name: held for name, held in account.traits.items() if name in plan.told_traits}
    # What is true now: rules that ask for a paused segment are judged on, whoever its members stay.
    members = hand.standing.members if hand.standing is not None else set[str]()
    segments = sorted(members & plan.told_segments)
    asks_more = max(plan.questions.values(), default=-1) > account.told_generation
    same = traits == account.told_traits and segments == account.told_segments
    if same and account.revision and not asks_more:
        return
    account.told_traits, account.told_segments, account.told_generation = traits, segments, account.generation
    account.revision += 1
    if hand.people.get(PEOPLE, 0) <= TOLD_AT_ONCE:
        for _, person in task.state.scan(b"p" + hand.key[1:]):
            _tell_one(task, hand, person.person, moment)
    else:
        _go_on(task, hand, moment, _BUCKETS[0])


def on_regard_on(task: Task, message: RegardOn) -> None:
    """Tell the next of an account's people, unless there is something newer to tell by now."""
    key = b"c" + task.keys.actor(message.account)
    account: Account | None = task.state.get(key)
    if account is None or account.revision != message.revision:
        return
    hand = at_hand(task, key, account)
    moment = Moment(message.cause, message.at, message.evidence)
    done = 0
    for place, bucket in enumerate(_BUCKETS):
        if bucket < message.after:
            continue
        for _, person in task.state.scan(b"p" + key[1:] + bucket):
            _tell_one(task, hand, person.person, moment)
            done += 1
        if done >= TOLD_AT_ONCE and place + 1 < len(_BUCKETS):
            _go_on(task, hand, moment, _BUCKETS[place + 1])
            return


def _go_on(task: Task, hand: AtHand, moment: Moment, after: bytes) -> None:
    account = hand.account
    on = RegardOn(
        account=account.identifier,
        revision=account.revision,
        clock=task.clock,
        at=moment.at,
        cause=moment.cause,
        evidence=moment.evidence,
        after=after,
    )
    task.out.log("links", hand.key[1:], encode(on))


def _tell_one(task: Task, hand: AtHand, person: str, moment: Moment) -> None:
    account = hand.account
    told = Regard(
        to=person,
        account=hand.name,
        revision=account.revision,
        clock=task.clock,
        at=moment.at,
        cause=moment.cause,
        evidence=moment.evidence,
        traits=account.told_traits,
        segments=account.told_segments,
        generation=account.generation,
    )
    task.out.log("links", task.keys.actor(person), encode(told))
