"""The world of a seed: topics, roles, events, kills, commands. It uses nothing that users have not."""

import random
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from confluent_kafka import Message, Producer

from tests.blackbox.collected import Door, Posting, is_posted
from tests.blackbox.language import Rules
from tests.blackbox.people import Action, Erase, Known, Relink, Sent, Unlink, play
from tests.blackbox.traffic import Person, Traffic, first_link, iso
from tests.kafka.deployment import Deployment, Role

HERE = Path(__file__).parent
ROLES = [("ingest", "0"), ("identity", "0"), ("unify", "0"), ("unify", "1")]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Size:
    """How large a world is. `events` of each of three bursts; `kills` in the one in which rules change, half of them in
    the others; `links` taken back; `erased`: people. `posted`: half of the people send to the collector.
    `replayed`: two more are there to be erased during the replay that comes then; `ahead`: until it was killed
    for the last time. `away_s`: ingest is stopped for so long in the first burst, and killed for as long in the last,
    and people go on meanwhile."""

    people: int = 40
    events: int = 400
    kills: int = 3
    links: int = 4
    erased: int = 3
    pauses: bool = True
    giant: int = 0  # identifiers of one person
    posted: bool = True
    replayed: bool = False
    ahead: int = 60
    away_s: float = 0.0


@dataclass
class World:
    """One seed, played."""

    deployment: Deployment
    seed: int
    size: Size
    history: list[Action | Posting] = field(default_factory=list)
    strange: list[Sent] = field(default_factory=list)
    strange_posted: list[Sent] = field(default_factory=list)
    door: Door | None = None
    roles: dict[tuple[str, str], Role] = field(default_factory=dict)
    applied_later: bool = False
    told: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    # Of a replay: where the world stands by now, the roles of the copy, and what the first workspace had said.
    stands_in: Literal["first", "copy", "switched"] = "first"
    copy_roles: dict[tuple[str, str], Role] = field(default_factory=dict)
    dead: list[Any] = field(default_factory=list)
    before: list[Any] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    still: list[Person] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed + 1)
        self.traffic = Traffic(self.seed, self.size.people)
        self.first = self.deployment
        self.raw = self.deployment.settings.topic("raw")
        self.producer = Producer(
            {
                "bootstrap.servers": str(self.deployment.settings.bootstrap_servers),
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "linger.ms": 2,
            }
        )

    # -------------------------------------------------------------------------------------------------------- the play

    def play(self) -> None:
        """Everything but the judging."""
        self.deployment.command("topics", "--create")
        for name, slot in ROLES:
            self.roles[name, slot] = self.deployment.start(name, slot=slot)
        self.deployment.start("privacy")
        if self.size.posted:
            self.door = Door(self.deployment, self.random)
        self.deployment.command("apply", str(HERE / "rules.yaml"))
        erased = self._silent(self.size.erased, "erased")
        self.still = self._silent(2, "still") if self.size.replayed else []
        unlinked = [each for each in self.traffic.people if not each.loner and not each.silent]
        for person in [*erased, *self.still]:
            self._all_of(person)
        self._send_strange()
        if self.size.giant:
            self.send(self.traffic.giants(now_ms(), self.size.giant))
        self.burst(self.size.events, self.size.kills // 2)
        self.burst(self.size.events, self.size.kills, halfway=self._apply_later)
        self.idle()
        if self.size.pauses:
            self.deployment.command("segments", "pause", "many_kinds")
        links = first_link(unlinked, self.known().edges)[: self.size.links]
        for link in links:
            self.decide(link)
        for person in erased:
            self.erase(person)
        self.idle()
        self.come_back(erased)
        if self.size.pauses:
            self.deployment.command("segments", "resume", "many_kinds")
        self.burst(self.size.events, self.size.kills // 2)
        if self.size.pauses and links:
            self.idle()
            self.decide(Relink(links[-1].a, links[-1].b))
        self.idle()

    def idle(self) -> None:
        self.deployment.wait_until_idle(180)
        self.tell("idle")

    def known(self) -> Known:
        """What there must be by now."""
        return play(self.learnt())

    def learnt(self) -> list[Action]:
        """The history, with what the collector made of what was posted since this was asked last."""
        if self.door is not None and any(isinstance(each, Posting) for each in self.history):
            resolved = self.door.learn(self.first.read("raw"), self.strange_posted)
            told = [resolved(each) if isinstance(each, Posting) else [each] for each in self.history]
            self.history = [each for some in told for each in some]
        return [each for each in self.history if not isinstance(each, Posting)]

    def rules(self) -> Rules:
        """The definitions in force."""
        files = ["rules.yaml", "later.yaml"] if self.applied_later else ["rules.yaml"]
        return Rules([each for file in files for each in documents(HERE / file)])

    def first_rules(self) -> Rules:
        """The definitions from the beginning."""
        return Rules(documents(HERE / "rules.yaml"))

    def changed_later(self) -> set[str]:
        """Segments that were not always what they are: how they came to their members is another history."""
        if self.stands_in == "copy":
            return set()  # docs/replay.md: it was always as it is
        later = {each["segment"] for each in documents(HERE / "later.yaml")} if self.applied_later else set()
        return later | {"many_kinds"}

    # ----------------------------------------------------------------------------------------------------------- parts

    def tell(self, text: str) -> None:
        self.told.append(f"{time.monotonic() - self.began:5.1f} s  {text}")

    def send(self, records: Iterable[Sent]) -> None:
        """Into `raw`, by their person, so that those of a person are in their order; or to the collector, by a person
        who sends there."""
        records = list(records)
        posted = [each for each in records if self.door is not None and not each.what and is_posted(each)]
        skipped = {id(each) for each in posted}

        def place(sent: Sent) -> Any:
            def delivered(error: object, message: Message) -> None:
                assert error is None, error
                sent.place = (message.partition() or 0, message.offset() or 0)

            return delivered

        for sent in records:
            if id(sent) in skipped:
                continue
            self.producer.produce(self.raw, sent.value, sent.key.encode(), on_delivery=place(sent))
            self.producer.poll(0)
            self.history.append(sent)
        self.producer.flush()
        if self.door is not None and posted:
            self.history += self.door.post(posted, self._is_door_killed())

    def _is_door_killed(self) -> bool:
        """Once in a while, if roles are killed at all."""
        return self.size.kills > 1 and self.random.random() < 0.02

    def burst(self, events: int, count: int, halfway: Any = None) -> None:
        if self.size.away_s and not halfway:
            self._burst_while_ingest_is_away(events)
            return
        kills = sorted(self.random.sample(range(events // 20), min(count, events // 20)))
        for step in range(events // 20):
            now = now_ms()
            self.send([self.traffic.some(now) for _ in range(20)])
            if step in kills:
                self.kill_in(self.deployment, self.roles)
            if halfway and step == events // 40:
                halfway()
            time.sleep(0.02)

    def _burst_while_ingest_is_away(self, events: int) -> None:
        """Events at a pace that lasts for half as long again."""
        place, steps = ("ingest", "0"), events // 20
        kills = any("ingest is stopped" in each for each in self.told)
        self.tell(f"ingest is {'killed' if kills else 'stopped'} for {self.size.away_s} s")
        role = self.roles[place]
        (role.kill if kills else role.pause)()
        is_away, until = True, time.monotonic() + self.size.away_s
        for _ in range(steps):
            self.send([self.traffic.some(now_ms()) for _ in range(20)])
            time.sleep(1.5 * self.size.away_s / steps)
            if is_away and time.monotonic() > until:
                is_away = False
                role.resume() if not kills else self._start_again(place)
        if not kills and role.process.poll() is not None:
            self._start_again(place)  # its place in the group was given away meanwhile

    def _start_again(self, place: tuple[str, str]) -> None:
        self.roles[place] = self.deployment.start(place[0], slot=place[1])

    def kill_in(self, deployment: Deployment, roles: dict[tuple[str, str], Role]) -> None:
        """Kill one of these, and start it again."""
        place = self.random.choice(list(roles))
        roles[place].kill()
        roles[place] = deployment.start(place[0], slot=place[1])
        self.tell(f"killed {place[0]} {place[1]} of {deployment.settings.prefix}")

    def move(self, to: Deployment, stands_in: Literal["copy", "switched"]) -> None:
        """From now on look there. What could not be used stays in the dead letters of the first workspace."""
        if self.stands_in == "first":
            self.dead = self.deployment.values("dead-letters")
        self.deployment, self.stands_in = to, stands_in

    def _apply_later(self) -> None:
        self.deployment.command("apply", str(HERE / "later.yaml"), "--wait", "120", timeout_s=150)
        self.applied_later = True
        self.tell("applied later.yaml")

    def _send_strange(self) -> None:
        self.strange = self.traffic.strange(now_ms())
        self.send(each for each in self.strange)
        if self.door is not None:
            self.strange_posted = [each for each in self.traffic.strange(now_ms(), "posted-") if each.value]
            self.door.post_strange(self.strange_posted)

    def _silent(self, count: int, name: str) -> list[Person]:
        made = []
        for index in range(count):
            identifiers = [
                f"user_id:{name}{index}",
                f"email:{name}{index}@example.org",
                f"anonymous_id:{name}{index}.b",
            ]
            made.append(Person(f"{name}{index}", identifiers, silent=True))
        return made

    def _all_of(self, person: Person) -> None:
        """Events under all identifiers of a person, which link them."""
        now = now_ms()
        user, email, browser = person.identifiers
        for identifiers in ([user, email], [user, browser], [browser], [email], [user]):
            self.send([self.traffic.event(now, person.name, identifiers, plain=True, own_id=True)])

    def decide(self, link: Unlink | Relink) -> None:
        word = "unlink" if isinstance(link, Unlink) else "relink"
        more = ["--forever"] if isinstance(link, Unlink) and link.forever else []
        self.deployment.command("identity", word, link.a, link.b, *more)
        self.history.append(link)
        self.tell(f"{word} {link.a} {link.b} {more}")

    def erase(self, person: Person) -> None:
        chosen = self.random.choice(person.identifiers)
        self.deployment.command("privacy", "erase", chosen, "--wait", "120")
        self.history.append(Erase(chosen, now_ms()))
        self.tell(f"erase {chosen}")

    def come_back(self, erased: list[Person]) -> None:
        """All send events that are kept out; then some allow something, and what they name comes in again."""
        for person in erased:
            user, email, browser = person.identifiers
            for identifiers in ([user, browser], [email], [browser]):
                self.send([self._quiet(person, identifiers)])
        self.idle()
        granted = {"consent": {"marketing": True}}
        for person, count in zip(erased, (1, 2, 0), strict=False):
            user, email, browser = person.identifiers
            if count:
                self.send([self._quiet(person, person.identifiers[:count], context=granted)])
                time.sleep(3)
            for identifiers in ([user, browser], [email], [user, email]):
                self.send([self._quiet(person, identifiers)])
        self.idle()

    def _quiet(self, person: Person, identifiers: list[str], **more: Any) -> Sent:
        """An event that happens now, and says nothing about consents by itself."""
        now = now_ms()
        body = {"type": "track", "event": "Order Completed", "properties": {"total": 1}, "context": {}, **more}
        body |= {"messageId": f"quiet-{self.traffic.number}", "timestamp": iso(now), "receivedAt": iso(now)}
        self.traffic.name(body, identifiers)
        return self.traffic.sent(person.name, body, identifiers, now, now)


class _AsWritten(yaml.SafeLoader):
    """Dates are texts, as docs/definitions.md has it."""


_AsWritten.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def documents(path: Path) -> list[dict[str, Any]]:
    """The definitions of a file."""
    return list(yaml.load_all(path.read_text(), _AsWritten))
