"""Transactions that do not end: whoever reads committed records waits behind them, and nobody says so."""

from collections.abc import Iterator

from pipeline.admin import wanted_topics
from pipeline.doctor.finding import Finding, SetUp, some

# A worker's own ends within 10 s, whatever becomes of the worker.
_LOOKS = 12
_LOOK_S = 1.0


def transactions(setup: SetUp) -> Iterator[Finding]:
    """Whether a partition of ours is held back by the same transaction for longer than one of ours can last."""
    topics = [topic.name for topic in wanted_topics(setup.settings)]
    held = setup.facts.held_back(topics)
    for _ in range(_LOOKS):
        if not held:
            break
        setup.sleep(_LOOK_S)
        now = setup.facts.held_back(sorted({topic for topic, _ in held}))
        held = {where: at for where, at in held.items() if now.get(where) == at}
    if held:
        where = some([f"{topic}/{number} from {at} on" for (topic, number), at in sorted(held.items())])
        yield Finding(
            "transactions",
            "wrong",
            f"one has been open for {_LOOKS * _LOOK_S:.0f} s, and readers see nothing behind it: {where}",
            "if a program of yours writes there, end it; else `kafka-transactions.sh find-hanging` names its producer,"
            " and `abort` ends it",
        )
    else:
        yield Finding("transactions", "good", "none holds readers back")
