"""The contract suite, run on the source."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from headwater_rows import RowsSource

from connectors.testing_sources import SourceContract


class TestRows(SourceContract):
    source = RowsSource

    @pytest.fixture(autouse=True)
    def _table(self, tmp_path: Path) -> Iterator[None]:
        self.path = tmp_path / "shop.db"
        self.database = sqlite3.connect(self.path, isolation_level=None)
        self.database.execute("CREATE TABLE orders (customer TEXT, total REAL)")
        yield
        self.database.close()

    def options(self) -> dict[str, Any]:
        return {"path": str(self.path), "table": "orders", "key": "customer"}

    def put(self, number: int) -> dict[str, Any]:
        self.database.execute("INSERT INTO orders VALUES (?, ?)", (f"c-{number}", number / 2))
        return {"customer": f"c-{number}", "total": number / 2}

    def break_system(self) -> None:
        self.database.execute("ALTER TABLE orders RENAME TO gone")

    def mend_system(self) -> None:
        self.database.execute("ALTER TABLE gone RENAME TO orders")
