"""`links`: messages between actors. `clock` is the sender's: a receiver's clock is never behind what it was told."""

from typing import Any

from msgspec import Struct

from pipeline.records.events import Cause, Event


class Tick(Struct, tag_field="kind", tag="tick", omit_defaults=True):
    """Time has come to `clock`. One that goes on where another has left off says how many profiles it may settle, and
    when (Kafka's time, ms) that other was written."""

    clock: int
    most: int = 0
    before: int = 0


class Forward(Struct, tag_field="kind", tag="forward", omit_defaults=True):
    """An event on its one hop from its route to the holder `to`, for the part named `fragment`, which belongs there
    since `epoch`."""

    to: str
    fragment: str
    event: Event
    position: tuple[int, int]
    generation: int
    clock: int
    birth: int = 0
    epoch: int = -1


class Assign(Struct, tag_field="kind", tag="assign", omit_defaults=True):
    """The fragment of `identifier` belongs to the profile named `name` since `epoch`.

    `name_erased` is the erase epoch of `name` (0: never), which its profile_id depends on. `companions` identifiers,
    this one included, go from the same former name to the same new one by this decision; `former_lives` says whether
    the former still names a group after it.
    """

    identifier: str
    name: str
    epoch: int
    reason: str
    clock: int
    name_erased: int = 0
    companions: int = 1
    former_lives: bool = False


class Recall(Struct, tag_field="kind", tag="recall", omit_defaults=True):
    """`holder` shall give `fragment` to `to`, whose erase epoch is `to_erased`; if `to` is empty, drop it: it was
    erased. `companions` and `holder_lives` are those of the Assign behind it."""

    holder: str
    fragment: str
    to: str
    epoch: int
    reason: str
    clock: int
    birth: int = 0
    to_erased: int = 0
    companions: int = 1
    holder_lives: bool = False


class Absorb(Struct, tag_field="kind", tag="absorb", omit_defaults=True):
    """A fragment, or a disjoint piece of one, on its way to the holder `to`.

    `state` is the encoded fragment (None: empty); `origin` the identifier that named the profile it leaves, `origin_id`
    its profile_id if it was published, `memberships` the segments it was a member of. `last` says that with this
    message the fragment is complete, but for what goes by other ways; `generation` is the newest whose
    leaves may be in it. `companions` fragments come from there by the same decision (0: this is not the last piece of
    its fragment). `owes`: account → the profile_ids that ended and whose part of it now belongs to the receiver, who
    tells the account so once all of it has come. `told`: destination → the segments it was told of the profile;
    `refused`: the destinations that may not have it.
    """

    to: str
    fragment: str
    epoch: int
    reason: str
    clock: int
    state: bytes | None = None
    birth: int = 0
    origin: str = ""
    memberships: list[str] = []
    last: bool = True
    origin_id: str = ""
    generation: int = 0
    companions: int = 1
    owes: dict[str, list[str]] = {}
    told: dict[str, list[str]] = {}
    refused: list[str] = []


class Forget(Struct, tag_field="kind", tag="forget", omit_defaults=True):
    """Route `route` no longer counts as having sent a-b; if it saw the edge after `received`, it sends it again."""

    route: str
    a: str
    b: str
    received: int
    clock: int


class Erase(Struct, tag_field="kind", tag="erase", omit_defaults=True):
    """Everything the actor `identifier` knew before `epoch` is gone for good. With `keep_out` what comes later is not
    taken in either, until a consent is given anew that is later than `erased_at`, when the erasure was asked for."""

    identifier: str
    epoch: int
    clock: int
    name: str = ""
    request_id: str = ""
    keep_out: bool = False
    erased_at: int = 0


class Bury(Struct, tag_field="kind", tag="bury", omit_defaults=True):
    """`identifier` was erased by the decision of `epoch`; the holder `to`, which had to do with it once, keeps no more
    than its hash."""

    to: str
    identifier: str
    epoch: int
    clock: int


class Readmit(Struct, tag_field="kind", tag="readmit", omit_defaults=True):
    """Somebody who was erased has consented anew, in an event that names `identifier` too, at `time`."""

    identifier: str
    time: int
    clock: int


class Sweep(Struct, tag_field="kind", tag="sweep", omit_defaults=True):
    """Go on evaluating every profile of the partition under `generation`, from the state key `after`."""

    generation: int
    clock: int
    after: bytes = b""


class Contribute(Struct, tag_field="kind", tag="contribute", omit_defaults=True):
    """What history has for the new leaves of `generation` in the part named `fragment`, on its one hop to the holder
    `to`. `state` is an encoded fragment with nothing but leaves. It goes the way of a Forward, behind all of them."""

    to: str
    fragment: str
    generation: int
    clock: int
    state: bytes
    birth: int = 0
    epoch: int = -1


class HistorySent(Struct, tag_field="kind", tag="history_sent", omit_defaults=True):
    """Partition `partition` has sent everything its history holds for the leaves of `generation`. It goes to every
    partition, behind the contributions: whoever has one from each has received all there will be."""

    generation: int
    partition: int
    clock: int


class LinkNote(Struct, omit_defaults=True):
    """One link of an identifier that is not followed: to `other`, seen since `first`."""

    other: str
    reason: str
    first: int


class Unfollowed(Struct, tag_field="kind", tag="unfollowed", omit_defaults=True):
    """The link from `identifier` to `other`, seen since `first`, is not followed, for this reason; without one, it is
    followed from now on, or there is no such link any more. `gone`: for `other` was erased."""

    identifier: str
    other: str
    epoch: int
    clock: int
    reason: str = ""
    first: int = 0
    gone: bool = False


class Noted(Struct, tag_field="kind", tag="noted", omit_defaults=True):
    """All that the part named `fragment`, which belongs to the holder `to` since `epoch`, shows of links that are not
    followed. `gone`: less than before, for somebody was erased; former holders hear of it too."""

    to: str
    fragment: str
    epoch: int
    clock: int
    links: list[LinkNote] = []
    birth: int = 0
    gone: bool = False


class Expired(Struct, tag_field="kind", tag="expired", omit_defaults=True):
    """The profile that held the fragment of `identifier`, since `epoch`, has expired: nothing of what was received
    up to `received` is left of it, and nothing leads there."""

    identifier: str
    received: int
    clock: int
    epoch: int = -1


class LivesAgain(Struct, tag_field="kind", tag="lives_again", omit_defaults=True):
    """The profile that holds the fragment of `identifier`, since `epoch`, had expired and has begun again."""

    identifier: str
    epoch: int
    clock: int


class Takeover(Struct, tag_field="kind", tag="takeover", omit_defaults=True):
    """Subscribers of another workspace come over, which told them this of the profile `profile_id`, named after
    `identifier`: segment → (is a member, since, sequence, version). The holder goes on from there."""

    identifier: str
    profile_id: str
    told: dict[str, tuple[bool, int, int, int]]
    clock: int


class Named(Struct, tag_field="kind", tag="named", omit_defaults=True):
    """A group event at `at` (event time) named an account and gave it traits."""

    account: str
    traits: dict[str, Any]
    at: int
    clock: int
    evidence: Cause


class Belongs(Struct, tag_field="kind", tag="belongs", omit_defaults=True):
    """What an account has to know of one person, from the holder of that person: in the order in which it came about.

    `account` is the account's identifier, `person` the one that names the profile, `identifiers` the strongest of
    theirs. `state` is an encoded fragment with nothing but leaves; `whole`: with it begins all there is of the person,
    `members` the hidden segments they are in, since when; otherwise it is joined in. `entered` and `left` are changes
    of those; `event` one event more, of `generation` (with `whole`, the one the person is judged under). `gone`: the
    person belongs to it no more; what they brought stays until the profile `moved_to` says that it has it (`origins`:
    whose part it has). `newest` is the newest generation whose leaves may be in it. `named`: what the group event says
    of the account by which the person came; it also comes by itself.
    """

    account: str
    person: str
    profile_id: str
    clock: int
    at: int
    cause: str
    evidence: Cause
    state: bytes | None = None
    whole: bool = False
    members: dict[str, int] = {}
    entered: dict[str, int] = {}
    left: list[str] = []
    event: Event | None = None
    generation: int = 0
    newest: int = 0
    identifiers: list[str] = []
    gone: bool = False
    moved_to: str = ""
    origins: list[str] = []
    named: Named | None = None


class Regard(Struct, tag_field="kind", tag="regard", omit_defaults=True):
    """What an account says of itself to the people whose rules ask for it: traits {name: (event time, value)} and
    segments, as the rules up to `generation` ask (-1: not known). The highest `revision` counts."""

    to: str
    account: str
    revision: int
    clock: int
    at: int
    cause: str
    evidence: Cause
    traits: dict[str, tuple[int, Any]] = {}
    segments: list[str] = []
    generation: int = -1


class RegardOn(Struct, tag_field="kind", tag="regard_on", omit_defaults=True):
    """Go on telling the people of an account `revision`, from the state key `after` on."""

    account: str
    revision: int
    clock: int
    at: int
    cause: str
    evidence: Cause
    after: bytes = b""


class PeopleSwept(Struct, tag_field="kind", tag="people_swept", omit_defaults=True):
    """Every person of `partition` is judged under `generation`, and has told their accounts. It goes to every
    partition, behind what was told."""

    generation: int
    partition: int
    clock: int


class AccountsSweep(Struct, tag_field="kind", tag="accounts_sweep", omit_defaults=True):
    """Go on evaluating every account of the partition under `generation`, from the state key `after`."""

    generation: int
    clock: int
    after: bytes = b""


LinksRecord = (
    Tick
    | Forward
    | Assign
    | Recall
    | Absorb
    | Forget
    | Erase
    | Bury
    | Readmit
    | Sweep
    | Contribute
    | HistorySent
    | Expired
    | LivesAgain
    | Takeover
    | Belongs
    | Named
    | Regard
    | RegardOn
    | PeopleSwept
    | AccountsSweep
    | Unfollowed
    | Noted
)
