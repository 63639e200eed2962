"""A campaign in slices: each slice is one world, hurt several times, drained and judged. It can be taken up later."""

import json
import random
import shutil
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from pipeline.broker import LocalKafka, free_port
from pipeline.settings import load
from pipeline.topology import TOPICS
from tests.attack.faults import BY_NAME, SETTINGS, Place, small_file_system
from tests.attack.launcher import Launcher
from tests.attack.proxy import Proxy
from tests.attack.storm import only_at, plan, storm
from tests.attack.truncation import VARIANTS, be_loud
from tests.attack.world import World

KILLS_A_SLICE = 45
FAULTS_A_SLICE = 8
RESULTS = "results.jsonl"
# These take more than twenty seconds each, nearly all of it waiting for a session to expire: a fifth as many.
SLOW = {
    name
    for name in BY_NAME
    if name.startswith(
        ("zombie", "scale", "commit of a dead", "full disk", "foreign", "SIGKILL of one", "restart of one")
    )
}


@dataclass
class Slice:
    """One world's worth of faults."""

    name: str
    setting: str
    seed: int
    kills: int = 0
    faults: list[str] = field(default_factory=list)


@dataclass
class Result:
    """What came of a slice; `failed` is empty if everything was right."""

    slice: str
    setting: str
    seconds: float
    done: dict[str, int]
    recovered: list[tuple[str, str, float]]
    ended: list[tuple[str, int, str]]
    verdict: dict[str, int]
    failed: str = ""


def slices(seed: int, kills: int, others: int, only: str = "") -> list[Slice]:
    """The slices of a campaign, in turns, so that a campaign cut short has some of everything."""
    queues: dict[str, list[Slice]] = {"storm": []}
    number, left = 0, kills
    while left > 0:
        count = min(KILLS_A_SLICE, left)
        queues["storm"].append(Slice(f"storm-{number}", "storm", seed * 1_000 + number, kills=count))
        number, left = number + 1, left - count
    for setting, faults in SETTINGS.items():
        todo = [
            fault.name
            for fault in faults
            if only in fault.name
            for _ in range(max(min(others, 1), others // 5) if fault.name in SLOW else others)
        ]
        random.Random(f"{seed}/{setting}").shuffle(todo)
        queues[setting] = [
            Slice(
                f"{setting}-{at // FAULTS_A_SLICE}", setting, seed * 1_000 + at, faults=todo[at : at + FAULTS_A_SLICE]
            )
            for at in range(0, len(todo), FAULTS_A_SLICE)
        ]
    variants = [name for name in VARIANTS if only in name]
    count = max(min(others, len(variants)), others // 5) if variants else 0
    queues["truncation"] = [
        Slice(f"truncation-{n}", "truncation", seed * 1_000 + n, faults=[variants[n % len(variants)]])
        for n in range(count)
    ]
    longest = max(map(len, queues.values()), default=0)
    # Spread evenly: a queue with few slices has them all along the way.
    placed = [
        (n * longest / len(queue), order, each)
        for order, queue in enumerate(queues.values())
        for n, each in enumerate(queue)
    ]
    return [each for _, _, each in sorted(placed, key=lambda place: place[:2])]


def results_in(folder: Path) -> list[Result]:
    """Everything done so far in a folder."""
    file = folder / RESULTS
    return [Result(**json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []


class Campaign:
    """Brokers and the launcher, for as many slices as wanted. `folder` keeps results, and the worlds that failed."""

    def __init__(self, folder: Path, broken_rule: str = "", partitions: int = 0) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self._broken = broken_rule
        self._partitions = partitions
        self._launcher = Launcher()
        self._single: tuple[LocalKafka, Proxy] | None = None

    def __enter__(self) -> "Campaign":
        return self

    def __exit__(self, *_: object) -> None:
        self._launcher.close()
        if self._single is not None:
            self._single[1].close()
            self._single[0].stop()

    def run(self, each: Slice) -> Result:
        """Run one slice and keep its result."""
        began = time.monotonic()
        folder = self.folder / f"world-{each.name}"
        shutil.rmtree(folder, ignore_errors=True)
        result = Result(each.name, each.setting, 0.0, {}, [], [], {})
        try:
            with self._kafka(each) as (kafka, proxy):
                self._in_world(each, kafka, proxy, folder, result)
        except AssertionError as wrong:
            result.failed = str(wrong)
        except Exception:  # noqa: BLE001 - a fault of the campaign itself is a failed slice, with all it says
            result.failed = traceback.format_exc()
        result.seconds = time.monotonic() - began
        if not result.failed:
            shutil.rmtree(folder, ignore_errors=True)
        with (self.folder / RESULTS).open("a") as file:
            file.write(json.dumps(asdict(result)) + "\n")
        return result

    @contextmanager
    def _kafka(self, each: Slice) -> Iterator[tuple[LocalKafka, Proxy | None]]:
        """The broker of a slice: the campaign's own, with its proxy, or one that ends with the slice."""
        cache = load().cache_dir
        if each.setting == "disk":
            with small_file_system(self.folder / "small", 300):
                kafka = LocalKafka(cache, self.folder / "small")
                try:
                    yield kafka, None
                finally:
                    kafka.kill()
                    kafka.stop()
        elif each.setting == "cluster":
            kafka = LocalKafka(cache, nodes=3)
            try:
                yield kafka, None
            finally:
                kafka.stop()
        else:
            if self._single is None:
                proxy = Proxy(free_port())
                kafka = LocalKafka(cache, proxied_ports=(proxy.port,))
                proxy.target = kafka.behind[proxy.port]
                self._single = kafka, proxy
            yield self._single

    def _in_world(self, each: Slice, kafka: LocalKafka, proxy: Proxy | None, folder: Path, result: Result) -> None:
        random_ = random.Random(each.seed)
        # Drawn apart: a seed's faults are what they were before there were other shapes.
        shape = random.Random(f"shape {each.seed}")
        via = f"127.0.0.1:{proxy.port}" if proxy is not None and each.setting == "network" else ""
        done: Counter[str] = Counter()
        world = World(
            kafka.bootstrap_servers,
            folder,
            self._launcher,
            each.seed,
            via=via,
            partitions=self._partitions or random_.choice([2, 2, 3]),
            output_partitions=shape.choice([None, 1, 2, 5]),
            transactional_ids=shape.choice([1, 2]),
            resting=shape.random() < 0.5,
            broken_rule=self._broken,
            per_second=random_.choice([30, 60, 120, 300]),
            wait_s=60.0 if self._broken else 180.0,
        )
        try:
            with world:
                try:
                    if each.setting == "storm":
                        kills = (
                            only_at(each.faults[0], each.kills) if each.faults else plan(each.seed % 1_000, each.kills)
                        )
                        done.update(storm(world, kills, each.seed))
                    elif each.setting == "truncation":
                        be_loud(world, each.faults[0], random_)
                        done[each.faults[0]] += 1
                        return
                    else:
                        place = Place(world, random_, kafka, proxy)
                        for name in each.faults:
                            time.sleep(random_.uniform(0.2, 1.5))
                            BY_NAME[name].run(place)
                            done[name] += 1
                    result.verdict = asdict(world.finish())
                except BaseException:
                    self._keep(world)
                    for number, log in enumerate(kafka.logs(), start=1):
                        shutil.copy(log, world.folder / f"broker-{number}.log")
                        _keep_segments(log.parent / "data", world.folder / f"segments-{number}", world.settings.prefix)
                    raise
        finally:
            result.done = dict(done)
            result.recovered = world.recovered
            result.ended = [(end.role, end.code, end.words) for end in world.ended]

    def _keep(self, world: World) -> None:
        """Write every topic of a world beside its logs."""
        for topic in TOPICS:
            lines = []
            try:
                records = world.deployment.read(topic.name)
            except Exception as error:  # noqa: BLE001 - what is left is worth keeping without it
                print(f"{topic.name} was not kept: {error}", file=sys.stderr)
                continue
            for record in records:
                value: Any = record.value
                if value is not None and not topic.name.endswith("changelog"):
                    try:
                        value = msgspec.json.decode(value)
                    except msgspec.DecodeError:
                        value = repr(value)
                lines.append(
                    json.dumps(
                        {"at": f"{record.partition}/{record.offset}", "key": repr(record.key), "value": value},
                        default=repr,
                    )
                )
            (world.folder / f"{topic.name}.jsonl").write_text("\n".join(lines))


def _keep_segments(data: Path, kept: Path, prefix: str) -> None:
    """Copy a node's segments of the workspace and of the coordinators: only they show markers, epochs, and what hangs.
    `kafka.tools.DumpLogSegments` reads them."""
    for folder in sorted(data.glob("*-*")):
        if folder.name.startswith((prefix, "__transaction_state-", "__consumer_offsets-")):
            (kept / folder.name).mkdir(parents=True, exist_ok=True)
            for segment in folder.glob("*.log"):
                shutil.copy(segment, kept / folder.name)
