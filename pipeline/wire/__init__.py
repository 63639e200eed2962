"""How values stand in topics: JSON as the rooms make it, or Avro with the schemas of a registry.

The rooms, and every door behind them, speak JSON. What a workspace's format is, only this package knows, and the Kafka
clients call it where bytes leave and come. Reading looks at the bytes: a workspace may have both in one topic.
"""

from pipeline.wire.values import JSON, Values, values_of

__all__ = ["JSON", "Values", "values_of"]
