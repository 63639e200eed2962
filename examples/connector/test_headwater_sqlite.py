"""The contract suite, run on the connector."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from headwater_sqlite import SqliteConnector

from connectors.testing import ConnectorContract


class TestSqlite(ConnectorContract):
    connector = SqliteConnector
    mirrors = True  # it holds a state, not a history

    @pytest.fixture(autouse=True)
    def _path(self, tmp_path: Path) -> None:
        self.path = tmp_path / "members.db"

    def options(self) -> dict[str, Any]:
        return {"path": str(self.path)}

    def received(self) -> list[str]:
        with sqlite3.connect(self.path) as database:
            return [row[0] for row in database.execute("SELECT delivery_id FROM members")]

    def members(self) -> set[str]:
        with sqlite3.connect(self.path) as database:
            return {row[0] for row in database.execute("SELECT profile_id FROM members WHERE is_member")}

    def break_destination(self) -> None:
        self.other = sqlite3.connect(self.path, isolation_level=None)
        self.other.execute("ALTER TABLE members RENAME TO gone")

    def mend_destination(self) -> None:
        self.other.execute("ALTER TABLE gone RENAME TO members")
        self.other.close()
