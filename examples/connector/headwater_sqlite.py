"""A connector: who is in which segment, in a SQLite file. Copy it, and put your system in place of SQLite."""

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from connectors import Connector, Options, Outcome, delivered, retry
from pipeline.records import Delivery

TABLE = """CREATE TABLE IF NOT EXISTS members (segment TEXT, profile_id TEXT, is_member INTEGER, sequence INTEGER,
    identifiers TEXT, delivery_id TEXT, PRIMARY KEY (segment, profile_id))"""
UPSERT = """INSERT INTO members VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET is_member = excluded.is_member,
    sequence = excluded.sequence, identifiers = excluded.identifiers, delivery_id = excluded.delivery_id
    WHERE sequence <= excluded.sequence"""


class SqliteOptions(Options):
    """What stands in the definition, beside the keys that every destination has."""

    path: Path


class SqliteConnector(Connector):
    kind = "sqlite"
    mode = "audience"  # it mirrors memberships; "trigger" acts on moments
    max_batch = 100  # so many deliveries come at once, at most
    concurrency = 1  # from so many threads
    keeps_order = True  # a batch may hold several of one profile: all of it is written, or nothing
    options_model = SqliteOptions

    def __init__(self, destination: str, options: SqliteOptions) -> None:
        super().__init__(destination, options)
        self._database = sqlite3.connect(options.path, check_same_thread=False)
        self._database.execute(TABLE)

    def deliver(self, deliveries: Sequence[Delivery]) -> list[Outcome]:
        try:
            with self._database:  # one transaction
                for each in deliveries:
                    self._write(each)
            return [delivered()] * len(deliveries)
        except sqlite3.Error as error:  # nothing was written: all of it comes again
            return [retry(f"SQLite: {error}")] * len(deliveries)

    def _write(self, each: Delivery) -> None:
        if each.action == "profile_erased":
            ids = [each.profile_id, *each.body.get("profile_ids", ())]
            self._database.executemany("DELETE FROM members WHERE profile_id = ?", [(one,) for one in ids])
        elif each.action in ("segment_entered", "segment_exited"):
            who = json.dumps([[one.namespace, one.value] for one in each.identifiers])
            entered, sequence = each.action == "segment_entered", each.body.get("sequence", 0)
            row = (each.segment, each.profile_id, entered, sequence, who, each.delivery_id)
            self._database.execute(UPSERT, row)

    def close(self) -> None:
        self._database.close()
