"""Kafka and RocksDB in memory, stepwise: no threads, no sleeps, every fault an input.

The simulation and the tests of the stages run the real worker on these; `tests/contracts` holds them to what the
real ones do.
"""

from pipeline.runtime.memory.broker import Fault, MemoryBroker
from pipeline.runtime.memory.clients import (
    MemoryAdmin,
    MemoryConsumer,
    MemoryLogReader,
    MemoryProducer,
    memory_adapters,
)
from pipeline.runtime.memory.store import MemoryStore, MemoryStores
from pipeline.runtime.memory.tables import MemoryTables

__all__ = [
    "Fault",
    "MemoryAdmin",
    "MemoryBroker",
    "MemoryConsumer",
    "MemoryLogReader",
    "MemoryProducer",
    "MemoryStore",
    "MemoryStores",
    "MemoryTables",
    "memory_adapters",
]
