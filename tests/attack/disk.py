"""A local store that fails: `ATTACK_FAIL_WRITE=n` fails the n-th write and all after it, as on a full disk, without
one; `ATTACK_BUFFER=bytes` flushes that often, so that a full disk shows itself soon."""

from collections.abc import Mapping
from typing import Any

from pipeline.runtime.rocksdb.store import RocksStore, RocksStores

FAIL_WRITE = "ATTACK_FAIL_WRITE"
BUFFER = "ATTACK_BUFFER"


class _FailingDatabase:
    """The database of a store, whose n-th write of the process fails and every later one too."""

    writes_left = 0

    def __init__(self, database: Any) -> None:
        self._database = database

    def write(self, *arguments: Any) -> Any:
        _FailingDatabase.writes_left -= 1
        if _FailingDatabase.writes_left <= 0:
            raise OSError(28, "No space left on device")
        return self._database.write(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)


def apply(environment: Mapping[str, str]) -> None:
    """Change the stores of this process as the environment says."""
    buffer = environment.get(BUFFER)
    if buffer is not None:
        options_of = RocksStores._options

        def smaller(self: RocksStores) -> Any:
            options = options_of(self)
            options.set_write_buffer_size(int(buffer))
            return options

        RocksStores._options = smaller  # type: ignore[method-assign]
    after = environment.get(FAIL_WRITE)
    if after is None:
        return
    _FailingDatabase.writes_left = int(after)
    open_store = RocksStore.__init__

    def opened(self: RocksStore, *arguments: Any, **named: Any) -> None:
        open_store(self, *arguments, **named)
        self._db = _FailingDatabase(self._db)  # type: ignore[assignment]

    RocksStore.__init__ = opened  # type: ignore[method-assign]
