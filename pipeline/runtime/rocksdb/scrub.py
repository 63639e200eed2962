"""Writing files of a RocksDB anew, so that nothing is left in them of what was deleted or replaced."""

from rocksdict import BottommostLevelCompaction, CompactOptions, Rdict

# No key goes on behind its prefix with so many of the highest byte.
_LONGEST_REST = 40


def write_anew(family: Rdict, prefix: bytes) -> None:
    """Compact what begins with a prefix, all of it if that is empty, to the bottom: reads and writes whole files, while
    other threads may read and write."""
    options = CompactOptions()
    options.set_bottommost_level_compaction(BottommostLevelCompaction.force_optimized())
    family.compact_range(prefix or None, prefix + b"\xff" * _LONGEST_REST if prefix else None, options)
