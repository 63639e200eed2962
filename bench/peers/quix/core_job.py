"""The core job in Quix Streams, with its stateful `apply`.

Settings are JSON in BENCH_JOB: bootstrap, application, input, segment_changes, profile_changes, rules, state_dir; with
`recognises_duplicates`, an event whose message id the person's state has is passed over. Nothing forgets these ids.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from quixstreams import Application, State

sys.path.insert(0, str(Path(__file__).parents[1]))
from rules import Rules


def main() -> None:
    job = json.loads(os.environ["BENCH_JOB"])
    rules = Rules(job["rules"])
    application = Application(
        broker_address=job["bootstrap"],
        consumer_group=job["application"],
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        commit_interval=1.0,
        state_dir=job["state_dir"],
        auto_create_topics=True,
        use_changelog_topics=True,
        loglevel="WARNING",
    )
    source = application.topic(job["input"], key_deserializer="bytes", value_deserializer="json")
    profile_changes = application.topic(job["profile_changes"], key_serializer="bytes", value_serializer="json")
    segment_changes = application.topic(job["segment_changes"], key_serializer="bytes", value_serializer="json")

    def fold(event: dict[str, Any], state: State) -> dict[str, Any]:
        profile, change, changes = rules.apply(state.get("profile"), event)
        state.set("profile", profile)
        return {"change": change, "changes": changes}

    def is_new(event: dict[str, Any], state: State) -> bool:
        if state.get(event["message_id"]) is not None:
            return False
        state.set(event["message_id"], event["received"])
        return True

    events = application.dataframe(source)
    if job["recognises_duplicates"]:
        events = events.filter(is_new, stateful=True)
    folded = events.apply(fold, stateful=True)
    folded.apply(lambda both: both["change"]).to_topic(profile_changes)
    folded.apply(lambda both: both["changes"], expand=True).to_topic(segment_changes)
    application.run()


if __name__ == "__main__":
    main()
