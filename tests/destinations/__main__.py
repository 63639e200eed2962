"""`python -m tests.destinations --kills 30`: five destinations, one dead, one slow, one flapping, and a worker that is
killed again and again; ends with 1 if a delivery is lost or out of order."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from pipeline.broker import running_kafka
from pipeline.settings import Settings, load
from tests.destinations.campaign import campaign


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--per-life", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    began = time.monotonic()
    with running_kafka(load(), temporary=True) as kafka, tempfile.TemporaryDirectory() as folder:
        values = {
            "bootstrap_servers": kafka.bootstrap_servers,
            "prefix": "destinations.",
            "state_dir": Path(folder) / "state",
            "secret": "the secret of a test",
            "partitions": 4,
        }
        settings = Settings.model_validate(values)
        try:
            campaign(settings, Path(folder), options.kills, options.per_life, options.seed)
        except AssertionError as error:
            print(f"WRONG: {error}", flush=True)
            return 1
    print(f"{options.kills} kills in {time.monotonic() - began:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
