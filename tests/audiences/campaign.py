"""Backfill, logins, re-resolution, an edited rule: a trigger hears of none of it, audiences end equal to the members.

history          people who viewed a page; some of them by a browser only, some as somebody and by a browser
backfill         a segment of all of them is applied, with a trigger and its audiences
logins           members log in: browsers become people, or join people who are members too
re-resolution    fewer browsers for each person: groups part; and as many as before: they merge again
edit             the rule is edited so that half of the members leave, and edited back
news             a few new people view the page: the trigger hears of them, which shows that it hears at all
"""

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec

from pipeline.records import Delivery
from tests.kafka.deployment import Deployment

SEGMENT = "visitors"
TRIGGER = "moments"
FILE = "list"
POSTGRES = "warehouse"
BROWSERS = 3
"""How many browsers one in ten of those who log in have."""

_RULE = """
segment: visitors
when: {performed: {event: Page Viewed%s}}
"""
_HALF = ", where: {properties.path: {starts_with: /even}}"
_IDENTITY = "identity: {namespaces: {anonymous_id: {limit: %d}}}\n"
_MOMENTS = """
destination: moments
kind: file
mode: trigger
segments: [visitors]
path: %s
"""
_LIST = """
destination: list
kind: file
mode: audience
segments: [visitors]
path: %s
"""
_WAREHOUSE = """
destination: warehouse
kind: postgres
segments: [visitors]
connection: {env: CAMPAIGN_DATABASE}
"""
_decode = msgspec.json.Decoder(Delivery).decode


class Size(NamedTuple):
    """How many people there are, how many of them log in, how many come at the end; how long each step may take, and
    whether groups merge again and the rule is edited, too."""

    members: int
    logins: int
    news: int = 20
    step_s: float = 120
    edits: bool = True


class Campaign:
    """Runs on a deployment whose topics exist, for the destinations `moments`, `list` and, if there is a PostgreSQL,
    `warehouse`. `causes`: how many changes of the segment there were, by cause and change."""

    def __init__(self, running: Deployment, size: Size, database: str | None, say: Callable[[str], None]) -> None:
        self.running = running
        self.size = size
        self.database = database
        self.say = say
        self.causes: dict[str, int] = {}
        self._files = {name: running.folder / f"{name}.jsonl" for name in (TRIGGER, FILE)}

    def run(self) -> None:
        """AssertionError with what a trigger heard, or what an audience has wrong."""
        size = self.size
        more = {"CAMPAIGN_DATABASE": self.database} if self.database else {}
        for role in ("ingest", "identity", "unify"):
            self.running.start(role)
        self.running.start("deliver", **more)
        self._apply(_IDENTITY % 50)
        self.running.produce(self._history())
        self._idle("history")
        self._apply(_IDENTITY % 50 + "---" + _RULE % "" + self._destinations())
        people = size.members + size.logins // 2 + len(range(0, size.logins, 10)) * (BROWSERS - 1)
        self.running.wait_until(lambda: len(self.running.members(SEGMENT)) == people, "the backfill", size.step_s)
        self._settled("backfill")
        self.running.produce(self._logins())
        self._settled("logins")
        parting, merging = (1, "re-resolution, groups part"), (50, "re-resolution, groups merge")
        for limit, what in (parting, merging) if size.edits else (parting,):
            self._apply(_IDENTITY % limit + "---" + _RULE % "" + self._destinations())
            self._settled(what)
        for where, what in ((_HALF, "edit"), ("", "edit back")) if size.edits else ():
            self._apply(_IDENTITY % 50 + "---" + _RULE % where + self._destinations())
            self._settled(what)
        heard = self._heard()
        assert not heard, f"the trigger heard {len(heard)} times, for example {heard[0]}"
        self.running.produce(_page(f"userId:new-{n}", f"new-{n}", n) for n in range(size.news))
        self._settled("news")
        heard = self._heard()
        assert [(one.action, one.cause) for one in heard] == [("segment_entered", "event")] * size.news, heard
        self._count()

    # ------------------------------------------------------------------------------------------------------- the steps

    def _destinations(self) -> str:
        texts = [_MOMENTS % self._files[TRIGGER], _LIST % self._files[FILE]]
        return "".join("---" + text for text in (*texts, *([_WAREHOUSE] if self.database else ())))

    def _history(self) -> Iterator[dict[str, Any]]:
        """Those who will log in are known by a browser until then; every second of them is somebody else's, too."""
        for number in range(self.size.members):
            if number >= self.size.logins:
                yield _page(f"userId:u-{number}", f"h-{number}", number)
                continue
            yield _page(f"anonymousId:a-{number}-0", f"h-{number}", number)
            if number % 2:
                yield _page(f"userId:u-{number}", f"g-{number}", number)
            if number % 10 == 0:
                for browser in range(1, BROWSERS):
                    yield _page(f"anonymousId:a-{number}-{browser}", f"h-{number}-{browser}", number)

    def _logins(self) -> Iterator[dict[str, Any]]:
        for number in range(self.size.logins):
            for browser in range(BROWSERS if number % 10 == 0 else 1):
                yield {
                    "type": "identify",
                    "userId": f"u-{number}",
                    "anonymousId": f"a-{number}-{browser}",
                    "messageId": f"l-{number}-{browser}",
                }

    def _apply(self, text: str) -> None:
        path = self.running.folder / "definitions.yaml"
        path.write_text(text)
        wait_s = self.size.step_s
        self.running.command("apply", str(path), "--wait", str(wait_s), timeout_s=wait_s + 30)

    def _idle(self, what: str) -> None:
        self.running.wait_until_idle(self.size.step_s)
        self.say(f"{what}: at rest")

    def _settled(self, what: str) -> None:
        """Wait until nothing moves, and the audiences hold exactly the members."""
        self.running.wait_until_idle(self.size.step_s)
        members: set[str] = set()

        def have_all(held: Callable[[], set[str]]) -> bool:
            members.clear()
            members.update(self.running.members(SEGMENT))
            return held() == members

        self.running.wait_until(lambda: have_all(self._in_file), f"{what}: the file has the members")
        if self.database:
            self.running.wait_until(lambda: have_all(self._in_postgres), f"{what}: so has PostgreSQL")
        self.say(f"{what}: {len(members):,} members, and so have the audiences")

    # ---------------------------------------------------------------------------------------------------- the judgement

    def _heard(self) -> list[Delivery]:
        return [_decode(one.value or b"") for one in self.running.read(f"deliveries.{TRIGGER}")]

    def _in_file(self) -> set[str]:
        """The members by the file: what its line of the highest sequence says of each."""
        newest: dict[str, tuple[int, str]] = {}
        path = self._files[FILE]
        for line in path.read_text().splitlines() if path.exists() else ():
            told = json.loads(line)
            profile, sequence = told["profile_id"], told["body"]["sequence"]
            if sequence > newest.get(profile, (0, ""))[0]:
                newest[profile] = sequence, told["action"]
        return {profile for profile, (_, action) in newest.items() if action == "segment_entered"}

    def _in_postgres(self) -> set[str]:
        import psycopg

        assert self.database
        with psycopg.connect(self.database) as connection:
            found = connection.execute("SELECT profile_id FROM headwater_members WHERE is_member").fetchall()
        return {row[0] for row in found}

    def _count(self) -> None:
        for record in self.running.read("segment-changes"):
            change = msgspec.json.decode(record.value or b"")
            what = f"{change['change']} by {change['cause']}"
            if change.get("continues"):
                what += ", continuing"
            self.causes[what] = self.causes.get(what, 0) + 1


def _page(who: str, message_id: str, number: int) -> dict[str, Any]:
    namespace, _, value = who.partition(":")
    path = "/even" if number % 2 == 0 else "/odd"
    return {"type": "page", namespace: value, "messageId": message_id, "properties": {"path": path}}


def campaign(
    running: Deployment, size: Size, database: str | None, say: Callable[[str], None] = print
) -> dict[str, int]:
    """Run it; gives the changes of the segment by cause, to see that there was something to hear."""
    made = Campaign(running, size, database, say)
    made.run()
    return made.causes


__all__ = ["FILE", "POSTGRES", "TRIGGER", "Size", "campaign"]
