"""The sample shop on a real broker: every example segment against one SQL query over all purchases."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from pipeline.admin import create_topics
from pipeline.identifiers import Keys
from pipeline.runtime.kafka.doors import produce_all
from pipeline.sample import purchases, raw_events
from pipeline.settings import Settings
from tests.kafka.deployment import Deployment

SAMPLE = Path(__file__).parents[2] / "deploy" / "sample"
DAY = 86_400_000

QUERIES = {
    "recent_buyers": f"SELECT customer FROM p GROUP BY 1 HAVING max(time) > $now - {30 * DAY}",
    "repeat_buyers": f"SELECT customer FROM p WHERE time > $now - {90 * DAY} GROUP BY 1 HAVING count(*) >= 3",
    "lapsed_buyers": f"SELECT customer FROM p GROUP BY 1 HAVING max(time) <= $now - {60 * DAY}",
    "one_time_buyers": "SELECT customer FROM p GROUP BY 1 HAVING count(*) = 1",
    "big_spenders": f"""SELECT customer FROM p WHERE time > $now - {365 * DAY}
                        GROUP BY 1 HAVING sum(dollars::DECIMAL(18, 2)) >= 500""",
    "bulk_buyers": "SELECT customer FROM p WHERE cds >= 5 GROUP BY 1 HAVING count(*) >= 2",
    "win_back": f"""SELECT customer FROM p GROUP BY 1 HAVING max(time) <= $now - {60 * DAY}
                    AND (count(*) >= 5
                         OR sum(dollars::DECIMAL(18, 2)) FILTER (time > $now - {365 * DAY}) >= 500)""",
}


@pytest.fixture
def deployment(new_workspace: Callable[..., Settings], tmp_path: Path) -> Iterator[Deployment]:
    settings = new_workspace(partitions=4)
    create_topics(settings)
    with Deployment(settings, tmp_path) as running:
        yield running


@pytest.mark.slow
def test_every_example_segment_equals_its_query(deployment: Deployment) -> None:
    for role in ("ingest", "identity", "unify"):
        deployment.start(role)
    deployment.command("apply", str(SAMPLE / "segments.yaml"))
    today = datetime.now(UTC).date()
    count = produce_all(deployment.settings, "raw", raw_events(SAMPLE / "cdnow.csv.gz", today))
    assert count == 69_659
    deployment.wait_until_idle(300)

    connection = duckdb.connect()
    connection.execute("CREATE TABLE p (customer TEXT, time BIGINT, cds INTEGER, dollars DOUBLE)")
    rows = [(p.customer, p.time, p.cds, p.dollars) for p in purchases(SAMPLE / "cdnow.csv.gz", today)]
    path = deployment.folder / "purchases.csv"
    path.write_text("customer,time,cds,dollars\n" + "\n".join(",".join(map(str, row)) for row in rows))
    connection.execute("INSERT INTO p SELECT * FROM read_csv(?, types={'customer': 'TEXT'})", [str(path)])
    keys = Keys(deployment.settings.secret_bytes())

    def expected(segment: str, now: int) -> set[str]:
        found = connection.execute(QUERIES[segment], {"now": now} if "$now" in QUERIES[segment] else {}).fetchall()
        return {keys.profile_id(f"user_id:{customer}") for (customer,) in found}

    assert len(deployment.table("profiles")) == 23_570
    for segment in QUERIES:
        for _ in range(20):
            # Memberships change while we look: compare at an instant at which they did not.
            before = int(time.time() * 1000) - 2_000
            members = deployment.members(segment)
            after = int(time.time() * 1000)
            if expected(segment, before) == expected(segment, after):
                break
        wanted = expected(segment, after)
        assert members == wanted, f"{segment}: {len(members - wanted)} too many, {len(wanted - members)} missing"
        assert wanted, f"{segment} has nobody: it shows nothing"
