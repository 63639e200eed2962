"""What a unify task keeps, and where.

    key                                        value
    "g"                                        Meta: clock, generation, the outstanding tick, counts
    "a" actor                                  Actor: both parts of an identifier's actor, and its own fragment
    "h" actor                                  Group, when it has outgrown the Actor
    "f" actor, fragment's actor                Fragment of another identifier, held here
    "d" actor, page                            Page of message hashes, when they have outgrown the Actor
    "e" actor, hash of the pair                SentEdge, when the sent evidence has outgrown the Actor
    "c", "p"                                   accounts and their people: account_state.py
    "r" actor                                  Notes: the route's links that are not followed
    "u" actor                                  Held: those that the holder's fragments show
    "n" bucket of 4,096 offsets of `events`    Dropped: which of them are in no profile, so that a backfill skips them

An actor's key is the 32 hexadecimal bytes of `Keys.actor`. Whoever has one identifier and nothing unusual is one
record.
"""

from typing import Any

import msgspec
from msgspec import Struct

from pipeline.activation import Told
from pipeline.profile import Fragment
from pipeline.records import LinkNote

VERSION = 1
META_KEY = b"g"
ACTORS = b"a"

NEVER = -1
"""The epoch of what was never assigned. Epochs are offsets, so 0 is one."""

FOREVER = 2**62
"""A deadline that does not come."""

GROUP_INLINE = 8
SHOWN_LINKS = 10


class Pair(Struct, array_like=True):
    """One profile and segment: whether it is a member, since when it is or is not, and how often that has changed."""

    member: bool
    at: int
    sequence: int
    version: int


class Group(Struct, array_like=True):
    """The fragments a holder has to do with.

    `present`: fragment → (complete, epoch since which it belongs here); incomplete while more of it is on its way.
    `given`: fragment → (to whom, epoch, erase epoch of that one): what comes late is passed on; to "" means it was
    erased. `births`: fragment → its erase epoch, where it has one.
    """

    version: int = VERSION
    present: dict[str, tuple[bool, int]] = {}
    given: dict[str, tuple[str, int, int]] = {}
    births: dict[str, int] = {}


class Belonging(Struct, array_like=True):
    """What there is between a person and accounts.

    `tied`: the accounts that know of this person; `regarded`: account → (revision, traits, segments) it told of itself.
    `owing`: account → profiles that ended as a part of this one, of which it has still to be told; `owes`: the accounts
    have not been told what has changed, for something is on its way. `answered`: account → the generation whose rules
    asked for what is `regarded`, where that is known; `heard`: up to which generation all have answered.
    """

    tied: list[str] = []
    regarded: dict[str, tuple[int, dict[str, tuple[int, Any]], list[str]]] = {}
    owing: dict[str, list[str]] = {}
    owes: bool = False
    answered: dict[str, int] = {}
    heard: int = FOREVER


class Actor(Struct, array_like=True):
    """The actor of an identifier: a route (first part) and a holder (second part).

    `name`: who holds its fragment ("" itself), since `epoch`; `name_erased`: that one's erase epoch. `seen`: the
    messages seen, packed (see dedup.py); `pages`: the first page and the one after the last. `sent`: evidence a → b →
    [first, last received]. `group` None: only its own fragment is here, complete. `pairs`: segment → Pair, at rest as
    bytes until a membership changes (`pairs_of`). `inherited`: segment → (clock, profile_ids that were members).
    `settled`: the clock up to which the holder is evaluated. `wake`: its entry in the time index. `held`: a change
    waits. `expecting`: epoch and origin → how many fragments of that decision are still to come, believed until
    `hold_until`. `hold_epoch`: this profile ends by that decision, as soon as it hears of it itself. `left`: of what a
    profile that ended was a member, for the fragments that still have to leave. `past`: buried, the holders that have
    given its fragment away; `givers`: buried, those that have given something to it and are not part of its profile:
    both know its text, and are told when it is erased. `kept_out`: erased at that clock, and to come back by nothing
    but a consent anew (0: no). `cut`: the position of `events` up to which an erasure took what the route had seen;
    `expired`: nothing received up to then is left, of what belonged here by `expired_epoch`. `belonging`: what there
    is between this person and accounts, if anything. `told`: what destinations were told of the profile, if there is
    anything to remember of it.
    `standing`: what rules say of the published profile, as of `settled` (`Standing.kept`). `unfollowed`: there may be
    links that its fragments show; False: there are none.
    """

    version: int
    identifier: str
    erased: int = 0
    name: str = ""
    epoch: int = NEVER
    name_erased: int = 0
    seen: bytes = b""
    pages: tuple[int, int] = (0, 0)
    sent: dict[str, dict[str, list[int]]] = {}
    sent_count: int = 0
    announced: bool = False

    own: Fragment | None = None
    group: Group | None = None
    spilled: bool = False
    pairs: dict[str, Pair] | bytes = b""
    published: bool = False
    retired: bool = False
    generation: int = 0
    settled: int = 0
    wake: int = 0
    held: bool = False
    hold_until: int = 0
    hold_epoch: int = NEVER
    expecting: dict[str, int] = {}
    inherited: dict[str, tuple[int, list[str]]] = {}
    left: list[str] = []
    cut: int = 0
    expired: int = 0
    belonging: Belonging | None = None
    past: list[str] = []
    givers: list[str] = []
    kept_out: int = 0
    told: Told | None = None
    expired_epoch: int = NEVER
    standing: bytes = b""
    unfollowed: bool = True


class Page(Struct, array_like=True):
    """Messages seen, packed as in `Actor.seen`; `newest` is the latest received of them."""

    version: int = VERSION
    newest: int = 0
    seen: bytes = b""


class SentEdge(Struct, array_like=True):
    """Evidence sent: the first time as sent, and the last received."""

    version: int
    a: str
    b: str
    first: int
    last: int


class Dropped(Struct, array_like=True):
    """Offsets within a bucket whose events the route dropped as duplicates, or that were put aside."""

    version: int = VERSION
    offsets: list[int] = []


class Notes(Struct, array_like=True):
    """The links of one identifier that are not followed, the earliest first."""

    version: int = VERSION
    links: list[LinkNote] = []


class Held(Struct, array_like=True):
    """Fragment → (the epoch since which it belongs here, its links that are not followed)."""

    version: int = VERSION
    fragments: dict[str, tuple[int, list[LinkNote]]] = {}


class Job(Struct, array_like=True):
    """History still to be read for the leaves that `generation` has and `before` has not: up to the marker's offset
    `until`, from `next` on."""

    generation: int
    before: int
    until: int
    next: int = 0


class Meta(Struct, array_like=True):
    """A task as a whole.

    `generation` is the one evaluated, since `switched`; `marked` that of the last marker, `newest` the newest whose
    leaves may have come from anywhere; `received` the latest of `events`, `tick` the outstanding tick (0: none).
    `caught_up` only holds a place: that of the last caught-up record once stood there. `position` is how far `events`
    was read; `jobs` the history to be read, in order; `sent` the newest generation whose history this partition has
    sent, `received_from` who has sent theirs, by generation; `done` the newest that was reported. `accounts` is the
    generation that accounts are evaluated under, since `accounts_switched`: that of people, once `people_swept` says
    that every partition has taken all of its people along.
    """

    version: int = VERSION
    clock: int = 0
    received: int = 0
    caught_up: int = 0
    generation: int = 0
    switched: int = 0
    marked: int = 0
    newest: int = 0
    tick: int = 0
    counts: dict[str, int] = {}
    position: int = 0
    jobs: list[Job] = []
    sent: int = 0
    received_from: dict[int, list[int]] = {}
    done: int = 0
    accounts: int = 0
    accounts_switched: int = 0
    people_swept: dict[int, list[int]] = {}


DECODERS: dict[int, Any] = {
    prefix[0]: msgspec.msgpack.Decoder(kind).decode
    for prefix, kind in (
        (b"g", Meta),
        (b"a", Actor),
        (b"h", Group),
        (b"f", Fragment),
        (b"d", Page),
        (b"e", SentEdge),
        (b"n", Dropped),
        (b"r", Notes),
        (b"u", Held),
    )
}
