"""Step 4 of the worker: each record of a batch goes to the stage of its task, then the stages end the batch. Where long
work is among them, each task's outputs are handed over before the next one is stepped, and what has come meanwhile goes
with the batch.

Tasks have nothing to do with each other, so one after the other takes all that is for it. What is handed over together
stands in the order in which the records came.
"""

from collections.abc import Callable, Mapping

from pipeline.runtime import dead_letters
from pipeline.runtime.adapters import Partition
from pipeline.runtime.errors import RuntimeFault
from pipeline.runtime.overlay import Outbox
from pipeline.runtime.poison import blame
from pipeline.runtime.ports import Record
from pipeline.runtime.task import Task
from pipeline.topology import Role


def step_batch(
    role: Role,
    records: list[Record],
    put_aside: Mapping[int, str],
    owners: Mapping[Partition, Task],
    outbox: Outbox,
    involved: dict[int, Task],
    hand_over: Callable[[], None] | None = None,
    meanwhile: Callable[[], bool] | None = None,
) -> bool:
    """Step `records`, but those that are `put_aside` (place, why): they become dead letters. Tasks that have something
    to do with the batch are added to `involved`. `hand_over` is called after each task. `meanwhile` is called when all
    are stepped: it adds to `records` what has come since, which is stepped too. False if it gives False: then nothing
    is left of the batch. Raises StageRaised."""
    _step_from(0, role, records, put_aside, owners, outbox, involved, hand_over)
    if meanwhile is not None:
        stepped = len(records)
        if not meanwhile():
            return False
        _step_from(stepped, role, records, put_aside, owners, outbox, involved)
    try:
        for task in involved.values():
            task.stage.finish(task.state, outbox)
            task.encode_changes(role.changelog is not None)
    except RuntimeFault:
        raise
    except Exception as error:
        raise blame(error, None) from error
    return True


def _step_from(
    first: int,
    role: Role,
    records: list[Record],
    put_aside: Mapping[int, str],
    owners: Mapping[Partition, Task],
    outbox: Outbox,
    involved: dict[int, Task],
    hand_over: Callable[[], None] | None = None,
) -> None:
    waiting: dict[int, list[int]] = {}
    try:
        for place in range(first, len(records)):
            record = records[place]
            partition = (record[0], record[1])
            task = owners.get(partition)
            if task is None:
                continue
            number = task.number
            if number not in waiting:
                waiting[number], involved[number] = [], task
            task.reached[partition] = record[2] + 1
            if put_aside and place in put_aside:
                _step(task, records, waiting[number], outbox)
                waiting[number] = []
                outbox.at(place)
                letter = dead_letters.dead_letter(record, role.name, put_aside[place])
                outbox.log(dead_letters.TOPIC, record.key, letter)
                if record.topic == role.history:
                    task.stage.put_aside(record, task.state, outbox)  # type: ignore[attr-defined]
            elif not task.passed or record[:3] not in task.passed:
                waiting[number].append(place)
        for number, places in waiting.items():
            _step(involved[number], records, places, outbox)
            if hand_over is not None:
                hand_over()
        outbox.at(len(records))
    except RuntimeFault:
        raise
    except Exception as error:
        raise blame(error, outbox.place) from error


def _step(task: Task, records: list[Record], places: list[int], outbox: Outbox) -> None:
    stage, state = task.stage, task.state
    if task.steps_many:
        stage.step_many(records, places, state, outbox)  # type: ignore[attr-defined]
        return
    for place in places:
        outbox.at(place)
        stage.step(records[place], state, outbox)
