"""Rows of a RocksDB, in their order."""

from collections.abc import Iterator

from rocksdict import Rdict


def rows_of(family: Rdict, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
    """The rows whose keys begin with `prefix`, in the order of their bytes, from the key `start` on."""
    iterator = family.iter()
    iterator.seek(max(prefix, start))
    while iterator.valid():
        key = iterator.key()
        if not key.startswith(prefix):
            break
        yield key, iterator.value()
        iterator.next()
    iterator.status()
