"""The only place that imports rocksdict: one RocksDB per task, and the tables of read models."""

from pipeline.runtime.rocksdb.store import RocksStore, RocksStores
from pipeline.runtime.rocksdb.tables import RocksTables

__all__ = ["RocksStore", "RocksStores", "RocksTables"]
