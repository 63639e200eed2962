"""A reaction written as a Faust agent, as a process of its own: it sees what was committed, typed, and nothing else."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Producer

from pipeline.admin import create_topics
from pipeline.records import Cause, SegmentChange, encode
from pipeline.settings import Settings

faust = pytest.importorskip("faust")

REACTIONS = """
import os
from pathlib import Path
from connectors.faust import App
from pipeline.records import SegmentChange

app = App("reactions", prefix=os.environ["PREFIX"], broker="kafka://" + os.environ["KAFKA"], datadir=os.environ["DATA"])


@app.on_segment_change("trial", changes=["entered"])
async def greet(change: SegmentChange) -> None:
    with Path(os.environ["OUT"]).open("a") as out:
        out.write(f"{change.profile_id} {change.sequence}\\n")


if __name__ == "__main__":
    app.main()
"""


def change(profile: str, sequence: int, segment: str = "trial", what: str = "entered") -> bytes:
    made = SegmentChange(profile, "person", segment, 1, what, 1, 1, sequence, "event", Cause(), False, [])  # type: ignore[arg-type]
    return encode(made)


def test_a_reaction_sees_committed_changes_only(new_workspace: Callable[..., Settings], tmp_path: Path) -> None:
    settings = new_workspace()
    create_topics(settings)
    topic = settings.topic("segment-changes")
    producer = Producer({"bootstrap.servers": str(settings.bootstrap_servers), "transactional.id": settings.prefix})
    producer.init_transactions(120)
    for committed, records in (
        (True, [("a", change("a", 1)), ("b", change("b", 1))]),
        (False, [("ghost", change("ghost", 1))]),
        (True, [("a", change("a", 2, what="exited")), ("c", change("c", 1, "other")), ("a", change("a", 3))]),
    ):
        producer.begin_transaction()
        for key, value in records:
            producer.produce(topic, value, key)
        producer.flush(120)
        (producer.commit_transaction if committed else producer.abort_transaction)(15)
    (tmp_path / "reactions.py").write_text(REACTIONS)
    out, log = tmp_path / "out", tmp_path / "log"
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PREFIX": settings.prefix,
        "KAFKA": str(settings.bootstrap_servers),
        "OUT": str(out),
        "DATA": str(tmp_path / "data"),
    }
    with log.open("wb") as output:
        worker = subprocess.Popen(
            [sys.executable, "reactions.py", "worker", "-l", "info"],
            cwd=tmp_path,
            env=environment,
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + 180
        while not out.exists() or len(out.read_text().splitlines()) < 3:
            assert worker.poll() is None and time.monotonic() < deadline, log.read_text()[-3_000:]
            time.sleep(0.1)
        time.sleep(1)
    finally:
        worker.terminate()
        worker.wait(120)
    assert sorted(out.read_text().split("\n")) == ["", "a 1", "a 3", "b 1"]


def test_topics_that_are_not_for_readers_are_refused() -> None:
    from connectors.faust import App

    with pytest.raises(ValueError, match="no topic for readers"):
        App("x", broker="kafka://localhost:1").changes("links")
