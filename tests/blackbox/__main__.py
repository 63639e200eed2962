"""`python -m tests.blackbox --seeds 3 --first 1`: worlds on a broker of their own, each from its seed."""

import argparse
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from pipeline.broker import running_kafka
from pipeline.settings import Settings, load
from tests.blackbox.copied import replay
from tests.blackbox.doors import ask
from tests.blackbox.judge import judge
from tests.blackbox.world import Size, World
from tests.kafka.deployment import Deployment


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.blackbox", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--people", type=int, default=80)
    parser.add_argument("--events", type=int, default=1_500)
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--giant", type=int, default=0, help="identifiers of one person; and one of 3 MB")
    parser.add_argument("--partitions", type=int, default=3)
    parser.add_argument("--output-partitions", type=int)
    parser.add_argument("--transactional-ids", type=int, default=1)
    parser.add_argument("--ahead", type=int, default=60, help="of the replay while it is killed: records on their way")
    parser.add_argument("--away", type=float, default=0.0, help="ingest is stopped, then killed, for so many seconds")
    parser.add_argument("--no-collector", action="store_true", help="nobody posts; all produce")
    parser.add_argument("--replay", action="store_true", help="then a replay into a second workspace, and the switch")
    options = parser.parse_args()
    failed = 0
    os.environ["HEADWATER_TRANSACTIONAL_IDS"] = str(options.transactional_ids)
    if options.output_partitions:
        os.environ["HEADWATER_OUTPUT_PARTITIONS"] = str(options.output_partitions)
    with running_kafka(load(), temporary=True) as kafka:
        for seed in range(options.first, options.first + options.seeds):
            began = time.monotonic()
            with tempfile.TemporaryDirectory() as folder:
                settings = Settings.model_validate(
                    {
                        "bootstrap_servers": kafka.bootstrap_servers,
                        "prefix": f"blackbox{seed}.",
                        "state_dir": Path(folder) / "state",
                        "secret": "the secret of a test",
                        "partitions": options.partitions,
                        "output_partitions": options.output_partitions,
                    }
                )
                with Deployment(settings, Path(folder)) as deployment, ExitStack() as closing:
                    size = Size(
                        options.people,
                        options.events,
                        options.kills,
                        giant=options.giant,
                        posted=not options.no_collector,
                        replayed=options.replay,
                        ahead=options.ahead,
                        away_s=options.away,
                    )
                    world = World(deployment, seed, size)
                    world.play()
                    verdicts = {"": judge(world, ask)}
                    if options.replay:
                        verdicts["the copy of "] = replay(world, closing)
                        verdicts["the switched "] = judge(world, ask)
            for what, verdict in verdicts.items():
                failed += bool(verdict.findings)
                counts = ", ".join(f"{count:,} {what}" for what, count in verdict.counts.items())
                print(f"{what}seed {seed}: {len(verdict.findings)} findings; {counts}", flush=True)
                for each in verdict.findings:
                    print(f"  ✗ {each[:1_500]}", flush=True)
            for each in world.told:
                print(f"    {each}")
            print(f"seed {seed}: {time.monotonic() - began:.0f} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
