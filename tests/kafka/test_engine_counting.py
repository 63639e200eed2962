"""The counting worker on a real broker, killed wherever it can be: readers see the undisturbed fold."""

import random
import secrets
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.broker import Kafka
from pipeline.runtime.failpoints import POINTS
from tests.kafka.engine_world import RealWorld

WORDS = [(f"k{n % 97}", "w" * (n % 50)) for n in range(6_000)]


@pytest.fixture
def world(kafka: Kafka, tmp_path: Path) -> Iterator[RealWorld]:
    with RealWorld(kafka.bootstrap_servers, f"e{secrets.token_hex(4)}.", tmp_path) as made:
        yield made


def undisturbed(words: list[tuple[str, str]]) -> list[str]:
    """Every count that the fold of these words passes through."""
    counted: dict[str, int] = {}
    lines = []
    for key, _ in words:
        counted[key] = counted.get(key, 0) + 1
        lines.append(f"{key} {counted[key]}")
    return sorted(lines)


def check(world: RealWorld, words: list[tuple[str, str]], process: "subprocess.Popen[bytes]", slot: str = "0") -> None:
    """Output, its order within each key, the compacted topic, the store and the changelog: all the same fold."""
    world.wait_consumed()
    lines = world.counts()
    assert sorted(lines) == undisturbed(words)
    by_key: dict[str, int] = {}
    for line in lines:
        key, _, count = line.partition(" ")
        assert int(count) == by_key.get(key, 0) + 1, f"{key} out of order"
        by_key[key] = int(count)
    latest = {key.decode(): int(value or b"0") for _, key, value in world.read("latest")}
    assert latest == by_key
    process.terminate()
    assert process.wait(120) == 0, world.logs()
    for number in range(world.partitions):
        assert world.stored(number, slot) == world.changelog(number)


@pytest.mark.parametrize("point", [point for point in POINTS if point != "mid_restore"])
def test_killed_at_a_named_point(world: RealWorld, point: str) -> None:
    world.say(WORDS[:3_000])
    for hit in (1, 4):
        process = world.worker(BATCH="300", HEADWATER_FAILPOINT=f"{point}:{hit}")
        assert process.wait(180) == -9, world.logs()
    process = world.worker(BATCH="300")
    world.say(WORDS[3_000:])
    check(world, WORDS, process)


def test_killed_in_mid_restore(world: RealWorld) -> None:
    world.say(WORDS)
    process = world.worker()
    world.wait_consumed()
    process.kill()
    process.wait()
    for number in range(world.partitions):
        lost = world.folder / "state-0" / "counting" / str(number)
        lost.rename(world.folder / f"lost-{number}")
    process = world.worker(HEADWATER_FAILPOINT="mid_restore:2")
    assert process.wait(180) == -9, world.logs()
    world.say([("k0", "w")])
    check(world, [*WORDS, ("k0", "w")], world.worker())


def test_killed_at_random_moments(world: RealWorld) -> None:
    chance = random.Random(47)
    process = world.worker(BATCH="200")
    for part in range(12):
        world.say(WORDS[part * 450 : (part + 1) * 450])
        time.sleep(chance.uniform(0.0, 1.5))
        process.kill()
        process.wait()
        process = world.worker(BATCH="200")
    # The rest is for the last one, so that it has restored every partition before it is asked to end.
    world.say(WORDS[12 * 450 :])
    check(world, WORDS, process)


def test_a_poisoned_word_becomes_a_dead_letter_and_stops_nothing(world: RealWorld) -> None:
    world.say([*WORDS[:50], ("k3", "poison"), *WORDS[50:100], ("k4", "late poison")])
    process = world.worker()
    check(world, WORDS[:100], process)
    letters = [value or b"" for _, _, value in world.read("dead-letters")]
    assert sorted(b"a poisoned word" in letter for letter in letters) == [False, True]
    assert sorted(b"poison that shows at the end" in letter for letter in letters) == [False, True]


def test_a_poisoned_echo_stops_the_worker_loudly(world: RealWorld) -> None:
    world.say(WORDS[:50])
    world.say([("k3", "poison")], topic="echoes")
    assert world.worker().wait(180) == 3
    assert "a poisoned word" in world.logs()


def test_echoes_come_back_and_committed_ones_are_deleted(world: RealWorld) -> None:
    world.say(WORDS[:200])
    world.worker(ECHO="1", TRIM_MS="1")
    world.wait("the echoes being counted", lambda: len(world.counts()) == 400)

    def trimmed() -> bool:
        # A trim comes with the batch after: one word for each partition.
        world.say([(f"k{n}", "w") for n in range(8)])
        return all(low > 0 for low, _ in world.bounds("echoes").values())

    world.wait("the deletion of echoes", trimmed)


def test_two_workers_share_and_one_takes_over(world: RealWorld) -> None:
    world.say(WORDS[:2_000])
    first, second = world.worker("0"), world.worker("1")
    world.wait_consumed()
    world.wait(
        "both having a partition",
        lambda: all(any((world.folder / f"state-{slot}" / "counting").iterdir()) for slot in "01"),
    )
    world.say(WORDS[2_000:3_000])
    world.wait_consumed()
    first.terminate()
    assert first.wait(120) == 0
    world.say(WORDS[3_000:5_000])
    # The partitions of a static member stay its own until its session is over.
    world.wait_consumed()
    second.kill()
    second.wait()
    third = world.worker("2")
    world.say(WORDS[5_000:])
    check(world, WORDS, third, "2")


def test_others_come_and_go_in_the_midst_of_long_work(world: RealWorld) -> None:
    first = world.worker("0", LONG="1", BATCH="100")
    world.say(WORDS[:2_000])
    world.wait("the first one being at work", world.counts)
    # Two partitions go to another one, and come back when its session is over.
    second = world.worker("1", LONG="1", BATCH="100")
    world.wait("a batch that is undone", lambda: "records undone" in world.logs())
    world.say(WORDS[2_000:3_000])
    world.wait_consumed()
    second.kill()
    second.wait()
    world.say(WORDS[3_000:4_000])
    world.wait_consumed()
    check(world, WORDS[:4_000], first, "0")
