"""The switch: the new workspace takes over from the old one, and subscribers go on with it.

     1  the old ingest is told to end, and its group is empty; its positions in the sources are final
     2  everything it had written is copied: this takes the copier's place, which fences the running one
     3  both workspaces have taken in everything, and nothing had to be copied meanwhile
     4  where the topics of the new one end now is where subscribers of the old one will go on: written down
     5  the holders of the new one are told what the old one had said, where the two differ: they go on from there, and
        the difference comes behind the places of 4 (one transaction, so it is told once)
     6  what was decided in the old one until now is copied too, and what it was asked to forget in vain is asked anew
     7  the groups of the new ingest and deliver begin where the old ones ended, and at the places of 4
     8  the new workspace is a copy no more: its ingest and deliver begin

Every step may be done again: who was killed in between runs the switch once more. Of two at once the first is fenced,
and the places are those that one of them has written in a transaction.
"""

import time
from collections.abc import Callable

from pipeline.admin import create_topics
from pipeline.definitions.log import read_catalog
from pipeline.identifiers import Keys
from pipeline.privacy.asking import hand_over_requests
from pipeline.privacy.vault import copy_suppressions
from pipeline.replay.copier import Copier
from pipeline.replay.errors import ReplayError
from pipeline.replay.run import make_ports
from pipeline.replay.told import read_told, takeovers
from pipeline.replay.workspace import old_settings, origin_of, write_successor
from pipeline.runtime.errors import Fatal, RuntimeFault
from pipeline.runtime.kafka.doors import TopicReader
from pipeline.runtime.kafka.groups import Positions, final_positions, members, set_positions
from pipeline.runtime.kafka.rest import AtRest
from pipeline.settings import Settings
from pipeline.sources.role import hand_over_positions
from pipeline.topology import DELIVERIES, INGEST
from pipeline.workspace_view import view_of
from pipeline.workspaces import Successor

_PAUSE_S = 0.1
_HAND_OVER_MS = 300_000
Say = Callable[[str], None]


def switch(settings: Settings, say: Say, wait_s: float = 300.0) -> Successor:
    """Let the workspace of `settings` take over from the one it is a replay of.

    Raises:
        ReplayError: something does not come about within `wait_s`; what was done stays, and the switch can be repeated.
    """
    origin = origin_of(settings)
    old = old_settings(settings, origin)
    create_topics(old)
    view = view_of(old)
    successor = view.successor
    if successor is not None and successor.prefix != settings.prefix:
        raise ReplayError(f"{old.prefix} goes on in {successor.prefix} already.", old.prefix, "switch to that one")
    if successor is None:
        successor = Successor(settings.prefix, time.time_ns() // 1_000_000)
        write_successor(old, successor)
    if not view_of(settings).is_copy:
        return successor
    say(f"the ingest of {old.prefix} ends")
    _wait(lambda: members(old, INGEST.name) == 0, wait_s, "The old ingest does not end.", "stop it")
    positions = final_positions(old, INGEST.name, _old_sources(settings, old))
    copier = Copier(make_ports(settings, old, transaction_timeout_ms=_HAND_OVER_MS))
    try:
        copier.start()
        return _take_over(copier, settings, old, positions, say, wait_s)
    except Fatal as fault:
        raise ReplayError(
            f"This switch was ended: {fault}.",
            settings.prefix,
            "another one has taken its place; if none did, run it again",
        ) from fault
    except RuntimeFault as fault:
        raise ReplayError(
            f"The switch cannot go on: {fault}.", settings.prefix, "see that Kafka is well; then run the switch again"
        ) from fault
    finally:
        copier.close()


def _take_over(
    copier: Copier, settings: Settings, old: Settings, positions: Positions, say: Say, wait_s: float
) -> Successor:
    # Only now: before, another switch could still write another.
    successor = view_of(old).successor
    if successor is None or successor.prefix != settings.prefix:
        raise ReplayError(f"{old.prefix} goes on elsewhere.", old.prefix, "switch to that one")
    if copier.state.ended:
        return successor
    _settle(copier, settings, old, say, wait_s)
    if not copier.state.starts:
        copier.choose(successor.starts or _ends(settings, _told_topics(settings)))
    successor = Successor(settings.prefix, successor.at, copier.state.starts)
    write_successor(old, successor)
    if not copier.state.handed_over:
        say("telling the difference")
        count = _hand_over(copier, settings, old)
        say(f"{count:,} profiles differ, or go on at another sequence")
    _settle(copier, settings, old, say, wait_s)
    copy_suppressions(old, settings)
    asked = hand_over_requests(old, settings)
    if asked:
        say(f"{asked:,} requests to be forgotten go on in {settings.prefix}")
    # Who was fenced meanwhile ends here, and sets nobody back.
    copier.choose(successor.starts)
    set_positions(settings, INGEST.name, positions)
    for topic, starts in successor.starts.items():
        if topic.startswith(DELIVERIES.name):
            group = f"deliver-{topic.removeprefix(DELIVERIES.name)}"
            set_positions(settings, group, {(topic, number): at for number, at in enumerate(starts)})
    copier.end()
    return successor


def _settle(copier: Copier, settings: Settings, old: Settings, say: Say, wait_s: float) -> None:
    """Copy what is left until both workspaces have taken in everything, and nothing has come meanwhile: what a killed
    ingest had committed may become readable late, and people decide, and are erased, at any moment."""
    old_rests, new_rests = AtRest(old), AtRest(settings)
    while True:
        say("copying what is left")
        _wait(lambda: _copied(copier), wait_s, "The copy does not come to its end.", "are its identity and unify up?")
        copied = copier.state
        say("waiting until both have taken in everything")
        _wait(old_rests, wait_s, f"{old.prefix} does not come to rest.", "leave its identity and unify running")
        _wait(new_rests, wait_s, f"{settings.prefix} does not come to rest.", "see that its identity and unify run")
        if _copied(copier) and copier.state == copied:
            return


def _copied(copier: Copier) -> bool:
    if copier.state.ended:
        return True
    if copier.run_once():
        return False
    copier.look()
    return copier.at_end and copier.is_idle


def _hand_over(copier: Copier, settings: Settings, old: Settings) -> int:
    hand_over_positions(old, settings)
    keys = Keys(settings.secret_bytes())
    readers = make_ports(settings, old).old(), make_ports(old, settings).old()
    try:
        before = read_told(readers[0], old.partitions, keys)
        now = read_told(readers[1], settings.partitions, keys)
    finally:
        for reader in readers:
            reader.close()
    return copier.hand_over(list(takeovers(before, now, copier.state.clock)))


def _told_topics(settings: Settings) -> list[str]:
    """The topics that subscribers and destinations follow."""
    catalog = read_catalog(settings)
    destinations = [DELIVERIES.name + each.name for each in catalog.of_kind(catalog.latest, "destination")]
    return ["segment-changes", "profile-changes", *destinations]


def _ends(settings: Settings, topics: list[str]) -> dict[str, list[int]]:
    found = {}
    for topic in topics:
        with TopicReader(settings, [topic], from_end=True) as reader:
            ends = reader.ends()
        found[topic] = [ends[settings.topic(topic), number] for number in range(len(ends))]
    return found


def _old_sources(settings: Settings, old: Settings) -> list[str]:
    """The sources as the new workspace names them: outside of both, they are the same topics."""
    return [_outside(old, source) for source in settings.sources]


def _outside(settings: Settings, topic: str) -> str:
    return topic if topic.startswith("/") else f"/{settings.topic(topic)}"


def _wait(true: Callable[[], bool], wait_s: float, what: str, what_to_do: str) -> None:
    until_s = time.monotonic() + wait_s
    while not true():
        if time.monotonic() > until_s:
            raise ReplayError(what, f"after {wait_s:g} s", f"{what_to_do}; then run the switch again")
        time.sleep(_PAUSE_S)
