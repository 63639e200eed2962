"""What is wrong with a set-up: one finding per thing looked at, each with what to do about it.

A check is a function of the settings (what is on this machine) or of a `SetUp` (what the Kafka says, as plain data).
tests/doors/test_doctor_faults.py has a fault for each, and sees that nobody names it without its check.
"""

import time
from collections.abc import Callable, Iterator, Sequence

from confluent_kafka import KafkaException

from pipeline.broker import find_kafka
from pipeline.doctor.allowed import allowed
from pipeline.doctor.certificates import certificates
from pipeline.doctor.clocks import clocks
from pipeline.doctor.facts import Facts, KafkaFacts
from pipeline.doctor.finding import Check, Finding, SetUp, Verdict
from pipeline.doctor.groups import lag, members
from pipeline.doctor.machine import environment, folders, restores, secret
from pipeline.doctor.registry import registry
from pipeline.doctor.retention import retention
from pipeline.doctor.sources import sources
from pipeline.doctor.topics import broker, broker_settings, copies, partitions, topics
from pipeline.doctor.transactions import transactions
from pipeline.doctor.whose import whose
from pipeline.errors import BrokerError, HeadwaterError
from pipeline.settings import Settings

__all__ = ["KAFKA_CHECKS", "MACHINE_CHECKS", "Facts", "Finding", "SetUp", "Verdict", "examine", "examine_kafka"]

MachineCheck = Callable[[Settings, int], Iterator[Finding]]
MACHINE_CHECKS: tuple[MachineCheck, ...] = (environment, secret, folders, certificates, registry, restores)
KAFKA_CHECKS: tuple[Check, ...] = (
    broker,
    broker_settings,
    topics,
    whose,
    partitions,
    copies,
    retention,
    sources,
    members,
    lag,
    transactions,
    clocks,
    allowed,
)


def examine(
    settings: Settings,
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    role: str | None = None,
) -> Iterator[Finding]:
    """Look at everything; findings come as they are made. What needs a broker is left out when there is none.

    With `role`, the user that the settings name is held to the rights of this role.
    """
    for check in MACHINE_CHECKS:
        yield from check(settings, now_ms())
    try:
        settings = find_kafka(settings)
    except HeadwaterError as error:
        yield Finding("Kafka", "wrong", f"{error.what} ({error.where})", error.what_to_do)
        return
    yield from examine_kafka(SetUp(settings, KafkaFacts(settings), now_ms, time.sleep, role))


def examine_kafka(setup: SetUp, checks: Sequence[Check] = KAFKA_CHECKS) -> Iterator[Finding]:
    """What is wrong with the Kafka and the workspace on it. A check that is refused an answer ends alone."""
    for check in checks:
        try:
            yield from check(setup)
        except BrokerError as error:
            yield Finding("Kafka", "wrong", f"{error.what} ({error.where})", error.what_to_do)
            return
        except HeadwaterError as error:
            yield Finding(check.__name__, "warning", f"{error.what} ({error.where})", error.what_to_do)
        except KafkaException as error:
            yield Finding(check.__name__, "warning", f"could not be seen: {error.args[0].str()}")
