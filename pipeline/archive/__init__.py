"""The archive: what stands in topics, in Parquet files on a disk or an object store, for longer than topics keep it."""
