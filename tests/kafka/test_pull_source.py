"""A source of one's own on a real broker: rows feed profiles, each once, whatever is killed."""

import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec

from pipeline.admin import create_topics
from pipeline.settings import Settings
from pipeline.sources.role import hand_over_positions, position_of
from tests.docs.test_source_template import TEMPLATE, installed
from tests.kafka.deployment import Deployment

ROOT = Path(__file__).parents[2]
SOURCE = """
source: shop
topic: orders
pull: {kind: sqlite_rows, path: PATH, table: orders, key: customer, every: 100ms, batch: 20}
event:
  type: track
  event: Order Completed
  userId: {from: value.customer}
  properties: {total: {from: value.total}}
"""
ROWS = 2_000
KILLS = 4
PEOPLE = 25


def test_rows_feed_profiles_each_once_whatever_is_killed(
    new_workspace: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = new_workspace(partitions=2, sources=("raw", "orders"))
    create_topics(settings)
    site = tmp_path / "site"
    site.mkdir()
    installed(site)
    path = tmp_path / "shop.db"
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("CREATE TABLE orders (customer TEXT, total REAL)")
    rows = [(f"c-{n % PEOPLE}", n / 2) for n in range(ROWS)]
    part = ROWS // (KILLS + 1)
    database.executemany("INSERT INTO orders VALUES (?, ?)", rows[:part])
    with Deployment(settings, tmp_path) as running:
        given = {"HEADWATER_SOURCES": "raw,orders", "PYTHONPATH": f"{site}:{TEMPLATE}:{ROOT}"}
        (tmp_path / "source.yaml").write_text(SOURCE.replace("PATH", str(path)))
        running.command("apply", str(tmp_path / "source.yaml"), "--wait", "0", **given)
        for role in ("ingest", "identity", "unify"):
            running.start(role, **given)
        pulling = running.start("source", "shop", **given)
        # Killed again and again in the middle of its work: it goes on from what was kept.
        for kill in range(1, KILLS + 1):
            before = int(position_of(settings, "shop") or 0)
            _goes_on(running, settings, before)
            pulling.kill()
            database.executemany("INSERT INTO orders VALUES (?, ?)", rows[kill * part : (kill + 1) * part])
            pulling = running.start("source", "shop", **given)
        running.wait_until(lambda: position_of(settings, "shop") == str(ROWS), "all rows")
        totals = [msgspec.json.decode(each.value or b"")["total"] for each in running.read("orders")]
        assert Counter(totals) == Counter(n / 2 for n in range(ROWS)), "each once, before anybody tells duplicates"
        running.wait_until(
            lambda: (
                sum(profile["totals"]["Order Completed"]["count"] for profile in running.table("profiles").values())
                == ROWS
            ),
            "every order in a profile",
        )
        assert len(running.table("profiles")) == PEOPLE

        # A second process of the same source ends the first, and nothing is doubled.
        second = running.start("source", "shop", slot="b", **given)
        database.execute("INSERT INTO orders VALUES ('c-0', 0.25)")
        running.wait_until(lambda: position_of(settings, "shop") == str(ROWS + 1), "one more")
        time.sleep(1)
        assert len(running.read("orders")) == ROWS + 1
        assert second.process.poll() is None or pulling.process.poll() is None, "one of the two goes on"

        successor = settings.model_copy(update={"prefix": f"{settings.prefix}next."})
        create_topics(successor)
        hand_over_positions(settings, successor)
        assert position_of(successor, "shop") == str(ROWS + 1), "a workspace that takes over pulls on from here"
    database.close()


def _goes_on(running: Deployment, settings: Settings, before: int) -> None:
    running.wait_until(lambda: int(position_of(settings, "shop") or 0) > before, "the source goes on")
