"""A worker's adapters on a real Kafka, with RocksDB for its state."""

import time
from pathlib import Path

from pipeline.runtime.adapters import Adapters
from pipeline.runtime.kafka.config import KafkaConfig
from pipeline.runtime.kafka.consumer import KafkaConsumer, KafkaLogReader
from pipeline.runtime.kafka.producer import KafkaAdmin, KafkaProducer
from pipeline.runtime.rocksdb import RocksStores
from pipeline.topology import Role


def wall_clock_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def kafka_adapters(config: KafkaConfig, role: Role, state_dir: Path, compressed: bool = True) -> Adapters:
    """What a worker of `role` is plugged into; its stores are in `state_dir`/<role>, and `compressed` or not."""
    stateful = role.changelog is not None
    return Adapters(
        consumer=KafkaConsumer(config, role.name),
        producer=KafkaProducer(config, role.name),
        admin=KafkaAdmin(config),
        clock=wall_clock_ms,
        reader=KafkaLogReader(config, role.name) if stateful else None,
        stores=RocksStores(state_dir / role.name, compressed=compressed) if stateful else None,
        history=(lambda: KafkaLogReader(config, role.name)) if role.history else None,
        look=lambda committed: KafkaLogReader(config, role.name, committed),
    )
