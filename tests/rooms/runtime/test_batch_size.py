"""Batches grow with a backlog, as far as time allows, and no further down than what is always taken at once."""

from pipeline.runtime.batch_size import BatchSize
from pipeline.runtime.settings import WorkerSettings

SETTINGS = WorkerSettings(batch_records=20_000, batch_records_at_once=1_500, batch_ms=500)


def test_full_batches_that_are_quick_double_up_to_the_most() -> None:
    size = BatchSize(SETTINGS)
    limits = []
    for _ in range(5):
        size.took(size.limit, 0.01)
        limits.append(size.limit)
    assert limits == [3_000, 6_000, 12_000, 20_000, 20_000]


def test_a_batch_takes_no_longer_than_it_should() -> None:
    size = BatchSize(SETTINGS)
    size.took(1_500, 0.249)
    assert size.limit == 3_000
    size.took(3_000, 0.999)
    assert size.limit == 1_500
    size.took(1_500, 9.0)
    assert size.limit == 1_500


def test_a_batch_that_was_not_full_says_nothing() -> None:
    size = BatchSize(SETTINGS)
    size.took(1_499, 0.001)
    assert size.limit == 1_500


def test_where_each_record_changes_a_key_of_its_own_a_batch_is_no_larger_than_what_may_be_in_memory() -> None:
    size = BatchSize(WorkerSettings(batch_records=80_000, batch_ms=2_000, batch_keys=10_000))
    limits = []
    for _ in range(5):
        size.took(size.limit, 0.01, size.limit)
        limits.append(size.limit)
    assert limits[0] == 3_000 and all(9_500 <= limit <= 10_000 for limit in limits[3:])
    size.took(size.limit, 0.01, size.limit // 4)
    assert size.limit > 18_000, "with four records of a key it may be larger"


def test_a_small_bound_is_kept() -> None:
    size = BatchSize(WorkerSettings(batch_records=3))
    size.took(3, 0.0001)
    assert size.limit == 3
