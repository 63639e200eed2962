"""The core job in faust-streaming, with a table.

Settings are JSON in BENCH_JOB: bootstrap, application, input, segment_changes, profile_changes, rules, state_dir,
partitions.
"""

import json
import os
import sys
from pathlib import Path

import faust

sys.path.insert(0, str(Path(__file__).parents[1]))
from rules import Rules

job = json.loads(os.environ["BENCH_JOB"])
rules = Rules(job["rules"])
app = faust.App(
    job["application"],
    broker=f"kafka://{job['bootstrap']}",
    store="rocksdb://",
    datadir=job["state_dir"],
    processing_guarantee="exactly_once",
    topic_partitions=job["partitions"],
    topic_replication_factor=1,
    broker_commit_interval=1.0,
    consumer_auto_offset_reset="earliest",
    stream_wait_empty=False,
    web_enabled=False,
)
source = app.topic(job["input"], key_type=bytes, key_serializer="raw", value_serializer="json")
profile_changes = app.topic(job["profile_changes"], key_serializer="raw", value_serializer="json")
segment_changes = app.topic(job["segment_changes"], key_serializer="raw", value_serializer="json")
profiles = app.Table("profiles", key_type=bytes, partitions=job["partitions"])


@app.agent(source)
async def fold(stream: faust.Stream) -> None:
    async for key, event in stream.items():
        profile, change, changes = rules.apply(profiles.get(key), event)
        profiles[key] = profile
        await profile_changes.send(key=key, value=change)
        for one in changes:
            await segment_changes.send(key=key, value=one)


if __name__ == "__main__":
    app.main()
