"""The only place that imports rocksdict: one RocksDB per task."""

from pipeline.runtime.rocksdb.store import RocksStore, RocksStores

__all__ = ["RocksStore", "RocksStores"]
