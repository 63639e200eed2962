"""The cellar: tasks, the commit order, restore. It knows Kafka and RocksDB, and nothing of customers."""
