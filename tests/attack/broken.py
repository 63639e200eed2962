"""Rules of the engine, taken out one at a time: a campaign that finds nothing is only worth something if it can.

`python -m tests.attack.broken RULE run unify` runs one role with the rule broken; `python -m tests.attack
--broken RULE` runs the campaign that must find it.
"""

import os
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.runtime import restore
from pipeline.runtime.kafka.config import KafkaConfig
from pipeline.runtime.kafka.producer import KafkaProducer
from pipeline.runtime.task import Task
from pipeline.runtime.worker import Worker

BROKEN = "ATTACK_BROKEN"


def write_before_commit() -> None:
    """The local store is written before the transaction is committed, not after."""
    commit_batch, flush, commit = Worker._commit, KafkaProducer.flush, KafkaProducer.commit
    waiting: list[Any] = []

    def batch(self: Worker, involved: Any, membership: Any) -> None:
        waiting[:] = [self, involved, {}]
        commit_batch(self, involved, membership)

    def flushed(self: KafkaProducer, timeout_s: float) -> Any:
        highest = flush(self, timeout_s)
        if waiting:
            waiting[2] = highest
        return highest

    def committed(self: KafkaProducer, timeout_s: float) -> None:
        if waiting:
            worker, involved, highest = waiting
            waiting.clear()
            now_ms = worker._adapters.clock()
            for task in involved:
                task.write(highest.get((worker.role.changelog or "", task.number)), now_ms)
                if task.store is not None:
                    # Whatever the timing of background work: this is the rule's failure when it was flushed.
                    task.store._values.flush()
            # A commit takes its time: what is killed while it is in flight is killed here.
            time.sleep(0.005)
        commit(self, timeout_s)

    Worker._commit = batch  # type: ignore[method-assign]
    KafkaProducer.flush = flushed  # type: ignore[method-assign]
    KafkaProducer.commit = committed  # type: ignore[method-assign]


def random_transactional_id() -> None:
    """Every start has a transactional id of its own, so that nothing fences a slot's former self."""
    producer = KafkaConfig.producer

    def other(self: KafkaConfig, role: str) -> dict[str, Any]:
        settings = producer(self, role)
        return {**settings, "transactional.id": f"{settings['transactional.id']}-{secrets.token_hex(8)}"}

    KafkaConfig.producer = other  # type: ignore[method-assign]


def restore_to_last_stable() -> None:
    """The restore ends at the last stable offset of the changelog, not at its high watermark."""
    reader = KafkaConfig.reader

    def stable(self: KafkaConfig, role: str, committed: bool) -> dict[str, Any]:
        return {**reader(self, role, committed), "isolation.level": "read_committed"}

    KafkaConfig.reader = stable  # type: ignore[method-assign]


def trust_the_group() -> None:
    """The positions of the state are not compared with those of the group."""

    def agreed(self: Any, restoration: Any) -> Any:
        found = {}
        for partition in restoration.task.partitions:
            at = (restoration.committed or {}).get(partition)
            found[partition] = self._beginning(partition) if at is None else at
        return found

    restore.Restorer._agreed = agreed  # type: ignore[method-assign]


def keep_overlay_on_abort() -> None:
    """What an aborted batch changed in the state stays in the overlay."""

    def drop(self: Task) -> None:
        self.reached = dict(self.positions)
        self.changes = None

    Task.drop = drop  # type: ignore[method-assign]


RULES: dict[str, tuple[Callable[[], None], ...]] = {
    "write-before-commit": (write_before_commit,),
    "random-transactional-id": (random_transactional_id,),
    "restore-to-last-stable": (restore_to_last_stable,),
    # A second rule stands behind these two: the positions in the state are compared with the group's. With both gone
    # the checker alone must see it.
    "write-before-commit-unchecked": (write_before_commit, trust_the_group),
    "restore-to-last-stable-unchecked": (restore_to_last_stable, trust_the_group),
    "keep-overlay-on-abort": (keep_overlay_on_abort,),
}


def apply(environment: Mapping[str, str]) -> None:
    """Break the rule that `ATTACK_BROKEN` names, if any."""
    name = environment.get(BROKEN, "")
    for take_out in RULES[name] if name else ():
        take_out()


if __name__ == "__main__":
    from tests.attack.role import run

    if len(sys.argv) != 4 or sys.argv[1] not in RULES or sys.argv[2] != "run":
        sys.exit(f"usage: python -m tests.attack.broken RULE run ROLE; rules: {', '.join(RULES)}")
    os.environ[BROKEN] = sys.argv[1]
    sys.exit(run(sys.argv[3]))
