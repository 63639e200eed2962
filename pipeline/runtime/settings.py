"""What can be tuned about a worker. The defaults are those the measurements of the engine were made with."""

from dataclasses import dataclass

from pipeline.topology import DAY_MS


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Bounds and paces of one worker.

    A batch is what waits, but not more than `batch_records`, and, beyond `batch_records_at_once`, not more than what
    takes about `batch_ms` and changes about `batch_keys`: with a backlog, what a key is written for is written once for
    all of its records in a batch.
    `cache_objects` and `cache_bytes` bound the decoded state that a worker keeps, shared evenly by its partitions.
    `tombstone_retention_ms` is `delete.retention.ms` of the changelog: a store older than half of it is wiped.
    `history_records` are read again in a turn that has no live records, `history_records_beside` in one that has, and
    `history_records_alone` when there have been next to none for a second: nobody waits, and large slices cost less.
    `topics_interval_ms` is how often it is asked whether a topic has been made again under the worker.
    `scrub_interval_ms` is how often files with values of the erased are rewritten, where there are any.
    `idle_timeout_s` is how long a worker with nothing to do waits before it looks at the clock again.
    `pause_s` is the least time between the commit of a transaction and the first record that the next one hands over.
    `gather_s` is how long records are then waited for that go along, before the transaction is ended; 0: not at all.
    `undone_pause_s` is how long is waited after the second transaction that is undone in a row, and twice as long after
    each further one, up to 2 s; 0: not at all.
    `long_turn_s` is how long a turn with long work (`can_wait` of the stage) may take before such work rests; 0: never.
    `touch_after_ms` is how long a restore makes no progress before a transaction of ours that hangs there is ended, and
    `hanging_after_ms` how long one is open in the outputs before it is looked at whose it is and whether it hangs.
    `stuck_s` bounds a turn of the worker; a process that passes it ends itself. A transaction lasts 10 s at most, so
    what takes longer is lost already. `offsets_stuck_s` bounds the one call that is known to hang, of which the
    broker's answer or its time-out (`call_timeout_s`) must have come by then.
    """

    batch_records: int = 40_000
    batch_records_at_once: int = 1_500
    batch_ms: int = 1_000
    batch_keys: int = 20_000
    history_records: int = 4_000
    history_records_beside: int = 500
    history_records_alone: int = 16_000
    history_wait_s: float = 0.02
    idle_timeout_s: float = 0.05
    pause_s: float = 0.0
    gather_s: float = 0.0
    undone_pause_s: float = 0.0
    long_turn_s: float = 0.0
    cache_objects: int = 200_000
    cache_bytes: int = 512 * 1024 * 1024
    call_timeout_s: float = 5.0
    touch_after_ms: int = 15_000
    hanging_after_ms: int = 2_000
    give_up_ms: int = 60_000
    restore_records: int = 5_000
    tombstone_retention_ms: int = DAY_MS
    trim_interval_ms: int = 10_000
    topics_interval_ms: int = 1_000
    scrub_interval_ms: int = 30_000
    stuck_s: float = 20.0
    offsets_stuck_s: float = 7.0
