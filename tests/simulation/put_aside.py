"""Records at which the stage raises, amid changing rules: `python -m tests.simulation.put_aside --seeds N --first M`.

About every eighth message, with its duplicates, makes the unify stage raise: before it has done anything, after all of
it, or only when the batch ends. Each becomes one dead letter, leaves no trace in any profile, evidence or account, and
history leaves it out like those that were new (DESIGN section 9, invariants 4, 7 and 8); everything else is as in
`rules_change`.
"""

import random
from collections import Counter
from typing import Any
from unittest.mock import patch

import msgspec

from pipeline.records import Event, decode_events_record
from pipeline.runtime.ports import Outputs, Record, State
from pipeline.unify import UnifyStage
from tests.simulation import checks, rules_change, seeds

SHARE = 0.12


def try_seed(seed: int) -> str | None:
    """Run one seed; what went wrong, or None."""

    def how(event: Any) -> str:
        own = random.Random(f"put aside {seed} {event.message_id}") if type(event) is Event else None
        return own.choice(("at once", "late", "at the end")) if own is not None and own.random() < SHARE else ""

    class Stage(UnifyStage):
        at_the_end = False

        def _step_event(self, record: Record, key: bytes, value: bytes, clock: int) -> None:
            raises = how(decode_events_record(value))
            if raises == "at once":
                raise ValueError(raises)
            super()._step_event(record, key, value, clock)
            if raises == "late":
                raise ValueError(raises)
            self.at_the_end = self.at_the_end or bool(raises)

        def finish(self, state: State, out: Outputs) -> None:
            super().finish(state, out)
            if self.at_the_end:
                raise ValueError("at the end")

        def forget(self) -> None:
            self.at_the_end = False
            super().forget()

    class Truth(checks.Truth):
        def send(self, partition: int, event: Event) -> None:
            if not how(event):
                super().send(partition, event)

    def check_put_aside(topics: checks.Topics) -> None:
        told: Counter[tuple[str, int, int]] = Counter()
        for written in topics.records("dead-letters"):
            letter = msgspec.json.decode(written.value or b"")
            told[letter["topic"], letter["partition"], letter["offset"]] += 1
        due = {
            ("events", partition, offset): 1
            for partition, records in enumerate(topics.by_partition("events"))
            for offset, written in records.items()
            if written.value is not None and how(decode_events_record(written.value))
        }
        checks.same("put aside", "dead letters", dict(told), due)

    with (
        patch.object(rules_change, "UnifyStage", Stage),
        patch.object(checks, "Truth", Truth),
        patch.object(checks, "check_nothing_refused", check_put_aside),
    ):
        return rules_change.try_seed(seed)


if __name__ == "__main__":
    raise SystemExit(seeds.main(__spec__.name if __spec__ else __name__, __doc__, try_seed, seeds=200))
