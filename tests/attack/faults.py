"""The faults other than a kill at a named point, as a table: each is done to a living world under traffic."""

import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException, Producer

from pipeline.broker import LocalKafka
from pipeline.runtime.failpoints import VARIABLE
from tests.attack import disk, inflight, role, sessions
from tests.attack.judge import STATEFUL
from tests.attack.proxy import Proxy
from tests.attack.world import ROLES, World, last_words


@dataclass
class Place:
    """Where a fault happens."""

    world: World
    random: random.Random
    kafka: LocalKafka | None = None
    proxy: Proxy | None = None

    @property
    def node(self) -> LocalKafka:
        """The broker, of a place where it may be hurt."""
        assert self.kafka is not None
        return self.kafka


@dataclass(frozen=True)
class Fault:
    """One line of the table. `setting`: workers, network (through the proxy), broker (one node), disk (one node on a
    small file system), cluster (three nodes)."""

    name: str
    setting: str
    run: Callable[[Place], None]


# --------------------------------------------------------------------------------------------------------- workers


def rolling_restart(place: Place) -> None:
    for each in ROLES:
        began = time.monotonic()
        code = place.world.stop(each)
        assert code == 0, f"{each} ended with {code} when asked to stop\n{place.world.last_lines()}"
        place.world.hurt("rolling restart", each, began)
        place.world.start(each)
        place.world.wait_recovered()


def one_three_one(place: Place) -> None:
    """Two more workers of unify, with one partition too few for all; then they go, one in order and one killed."""
    world = place.world
    for slot in ("b", "c"):
        world.start("unify", slot)
    world.hurt("scale 1→3→1", "unify")
    world.wait_recovered()
    time.sleep(place.random.uniform(0.0, 2.0))
    gone = ["b", "c"]
    place.random.shuffle(gone)
    world.stop("unify", gone[0])
    world.kill("unify", gone[1])
    world.hurt("scale 1→3→1", "unify")
    world.wait_recovered()


def zombie(place: Place, point: str = "") -> None:
    """A worker is stopped past its session, another takes over, the first wakes; then the second goes."""
    world = place.world
    name = f"SIGSTOP {point or 'at any moment'}, SIGCONT"
    who = place.random.choice(["unify", "unify", "identity", "ingest"])
    if point:
        world.kill(who)
        running = world.start(who, **{role.STOP_AT: f"{point}:{place.random.choice([2, 4, 9])}"})
        world.wait("the stop", lambda: world.exit_code(running) is not None or state_of(running.pid) == "T")
    else:
        time.sleep(place.random.uniform(0.0, 1.0))
        world.signal(who, signal.SIGSTOP)
    world.hurt(name, who)
    world.start(who, "b")
    world.wait_recovered()
    time.sleep(place.random.uniform(0.0, 1.5))
    world.signal(who, signal.SIGCONT)
    time.sleep(place.random.uniform(0.5, 2.0))
    if place.random.random() < 0.5:
        world.stop(who, "b")
    else:
        world.kill(who, "b")
    world.hurt("the taker of a zombie's place goes", who)
    world.wait_recovered()


def state_of(pid: int) -> str:
    """A process's state letter; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def lost_store(place: Place) -> None:
    who = place.random.choice(list(STATEFUL))
    place.world.kill(who)
    shutil.rmtree(place.world.state_dir("0") / who)
    place.world.hurt("lost local store", who)
    place.world.start(who)
    place.world.wait_recovered()


def foreign_transaction(place: Place) -> None:
    """Somebody's transaction is open on the changelog while a store has to be restored whole."""
    world = place.world
    who = place.random.choice(list(STATEFUL))
    foreign = Producer(
        {
            **world.settings.client_properties(),
            "transactional.id": f"{world.settings.prefix}foreign",
            "transaction.timeout.ms": 6_000,
            "log_level": 0,
        }
    )
    foreign.init_transactions(30)
    foreign.begin_transaction()
    for partition in range(world.inputs(who)):
        foreign.produce(world.settings.topic(STATEFUL[who]), b"\x00" * 8 + b"garbage", b"agarbage", partition)
    assert foreign.flush(30) == 0
    # Long enough for commits to come after it, and short enough to be open during the restore.
    time.sleep(2.0)
    world.kill(who)
    shutil.rmtree(world.state_dir("0") / who)
    world.hurt("foreign transaction on the changelog, store lost", who)
    world.start(who)
    world.wait_recovered()
    try:
        foreign.abort_transaction(5)
    except KafkaException:
        pass  # the broker has done so already


def crowded_deadlines(place: Place) -> None:
    """Thousands of deadlines fall due at once; unify is killed again and again while it settles them, and restores what
    it had in between. Live events go on."""
    world, random_ = place.world, place.random
    world.crowd(random_.choice([1_000, 4_000]))
    time.sleep(random_.uniform(2.0, 4.5))
    for _ in range(random_.choice([2, 4, 7])):
        world.kill("unify")
        if random_.random() < 0.25:
            shutil.rmtree(world.state_dir("0") / "unify")
        point = random_.choice(["mid_restore", "after_step", "after_produce", "after_offsets", "after_commit"])
        armed = f"{point}:1" if point == "mid_restore" else f"tick@{point}:{random_.choice([1, 2, 5])}"
        variable = VARIABLE if point == "mid_restore" else inflight.KILL_IN
        running = world.start("unify", **{variable: armed})
        world.hurt("killed while thousands of deadlines are settled", "unify")
        until = time.monotonic() + 8
        while world.exit_code(running) is None and time.monotonic() < until:
            time.sleep(0.02)
    world.kill("unify")
    world.start("unify")
    world.wait_recovered()


def failing_write(place: Place) -> None:
    who = place.random.choice(list(STATEFUL))
    world = place.world
    world.kill(who)
    running = world.start(who, **{disk.FAIL_WRITE: str(place.random.choice([1, 2, 5, 12]))})
    world.wait("the end of a worker that cannot write", lambda: world.exit_code(running) is not None)
    world.hurt("failing write under the store", who)
    world.tend()
    world.wait_recovered()


def damaged_store(place: Place) -> None:
    """The files of a store are damaged while nobody has it open. Its worker must end over it, put no event aside for
    it, and go on when the folder is deleted, as it says."""
    world = place.world
    who = place.random.choice(list(STATEFUL))
    world.stop(who)
    folder = world.state_dir("0") / who
    for file in folder.glob("*/*.sst"):
        content = bytearray(file.read_bytes())
        # Not what is read when it is opened: that is refused at once.
        for at in range(0, len(content) * 3 // 4, 500):
            content[at] ^= 0xFF
        file.write_bytes(content)
    running = world.start(who)
    world.hurt("damaged store", who)
    until = time.monotonic() + 20
    while world.exit_code(running) is None:
        assert time.monotonic() < until, f"{who} goes on with a damaged store\n{world.last_lines()}"
        time.sleep(0.05)
    words = last_words(running.log)
    assert "delete the folder" in words, words
    world.kill(who)
    shutil.rmtree(folder)
    world.start(who)
    world.wait_recovered()


def full_disk(place: Place) -> None:
    """The folder of the stores is a small file system that fills up under a running worker, then has room again."""
    world, who = place.world, "unify"
    world.kill(who)
    folder = world.state_dir("0") / who
    shutil.rmtree(folder, ignore_errors=True)
    with small_file_system(folder, 16):
        running = world.start(who, **{disk.BUFFER: str(32 * 1024)})
        world.hurt("new file system", who)
        world.wait_recovered()
        _fill(folder)
        world.hurt("full disk under the store", who)
        until = time.monotonic() + 12
        while world.exit_code(running) is None and time.monotonic() < until:
            time.sleep(0.1)
        # Whether or not it has met the end of the disk by itself: a start there meets it.
        world.kill(who)
        again = world.start(who)
        until = time.monotonic() + 4
        while world.exit_code(again) is None and time.monotonic() < until:
            time.sleep(0.1)
        (folder / "filler").unlink()
        world.wait_recovered()
        world.kill(who)
    world.hurt("full disk under the store", who)
    world.start(who)
    world.wait_recovered()


def _fill(folder: Path) -> None:
    with (folder / "filler").open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1 << 8):
            try:
                while True:
                    if file.write(b"x" * size) < size:
                        break
            except OSError:
                continue


# ---------------------------------------------------------------------------------------------------------- broker


def broker_restart(place: Place) -> None:
    _hurt_all(place, "broker stopped and started")
    place.node.stop_node(1)
    time.sleep(place.random.uniform(0.0, 2.0))
    place.node.restart(1)
    place.world.wait_recovered()


def broker_kill(place: Place) -> None:
    _hurt_all(place, "broker SIGKILL")
    place.node.kill(1)
    time.sleep(place.random.uniform(0.0, 2.0))
    place.node.restart(1)
    place.world.wait_recovered()


def full_broker_disk(place: Place) -> None:
    """The broker's data are on a small file system that fills up; it ends, or writes nothing; later there is room."""
    _hurt_all(place, "full disk under the broker")
    _fill(place.node.folder)
    until = time.monotonic() + 8
    while place.node.pid() and time.monotonic() < until:
        place.world.tend()
        time.sleep(0.1)
    (place.node.folder / "filler").unlink()
    place.node.kill(1)
    place.node.restart(1)
    place.world.wait_recovered()


@contextmanager
def small_file_system(folder: Path, megabytes: int) -> Iterator[None]:
    """A file system of its own in `folder` while the block runs; takes root."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def node_kill(place: Place) -> None:
    """One of three nodes dies, with whatever it leads and coordinates; it comes back after the others have gone on."""
    node = place.random.choice([1, 2, 3])
    _hurt_all(place, "SIGKILL of one of three nodes")
    place.node.kill(node)
    place.world.wait_recovered()
    place.node.restart(node)
    time.sleep(1.0)


def node_restart(place: Place) -> None:
    node = place.random.choice([1, 2, 3])
    _hurt_all(place, "restart of one of three nodes")
    place.node.restart(node)
    place.world.wait_recovered()


def _hurt_all(place: Place, name: str) -> None:
    for each in ROLES:
        place.world.hurt(name, each)


# --------------------------------------------------------------------------------------------------------- network


def _proxy(place: Place) -> Proxy:
    assert place.proxy is not None
    return place.proxy


def stall(place: Place) -> None:
    """Nothing passes, for up to longer than a session; connections stay open."""
    _hurt_all(place, "network stalls")
    _proxy(place).stall(True)
    time.sleep(place.random.choice([1.0, 3.0, 7.5]))
    _proxy(place).stall(False)
    place.world.wait_recovered()


def cut(place: Place) -> None:
    _hurt_all(place, "connections cut")
    for _ in range(place.random.choice([1, 3, 6])):
        _proxy(place).cut()
        time.sleep(place.random.uniform(0.0, 0.5))
    place.world.wait_recovered()


def unreachable(place: Place) -> None:
    _hurt_all(place, "broker unreachable")
    _proxy(place).refuse(True)
    _proxy(place).cut()
    time.sleep(place.random.uniform(1.0, 4.0))
    _proxy(place).refuse(False)
    place.world.wait_recovered()


def no_brokers(place: Place) -> None:
    """Whoever asks is told, for a moment, that there are no brokers: librdkafka then forgets those it began with."""
    proxy = _proxy(place)
    _hurt_all(place, "told that there are no brokers")
    proxy.hide_brokers(True)
    before = proxy.rules.brokers_hidden
    proxy.cut()
    time.sleep(place.random.uniform(1.0, 3.0))
    place.world.wait("an answer without brokers", lambda: proxy.rules.brokers_hidden > before)
    proxy.hide_brokers(False)
    place.world.wait_recovered()


def swallowed_answer(place: Place) -> None:
    """The commit happens and its answer never comes."""
    proxy = _proxy(place)
    _hurt_all(place, "answer of a commit swallowed")
    before = proxy.rules.swallowed
    proxy.swallow_commit_answers(place.random.choice([1, 2, 4]))
    place.world.wait("a swallowed answer", lambda: proxy.rules.swallowed > before)
    if place.random.random() < 0.3:
        who = place.random.choice(ROLES)
        place.world.kill(who)
        place.world.start(who)
    place.world.wait_recovered()
    proxy.swallow_commit_answers(0)


def delayed_commit(place: Place) -> None:
    """A commit is still on its way when its sender is killed; it arrives while the successor starts."""
    proxy = _proxy(place)
    who = place.random.choice(ROLES)
    proxy.hold_commits(place.random.uniform(0.3, 3.0), f".{who}-")
    before = proxy.rules.held
    place.world.wait("a held commit", lambda: proxy.rules.held > before)
    place.world.kill(who)
    place.world.hurt("commit delayed, its sender killed", who)
    place.world.start(who)
    proxy.hold_commits(0)
    place.world.wait_recovered()


def slow_commits(place: Place) -> None:
    proxy = _proxy(place)
    _hurt_all(place, "commits delayed")
    proxy.hold_commits(place.random.uniform(0.1, 1.5))
    time.sleep(3.0)
    proxy.hold_commits(0)
    place.world.wait_recovered()


def late_commit(place: Place) -> None:
    """A dead worker's commit arrives when another slot has its partitions: it must count, and be restored."""
    world, proxy = place.world, _proxy(place)
    who = place.random.choice(["unify", "unify", "identity"])
    world.kill(who)
    world.start(who, **{sessions.TRANSACTION_MS: "25000"})
    world.hurt("restart", who)
    world.wait_recovered()
    proxy.hold_commits(place.random.uniform(7.0, 11.0), f".{who}-0")
    before = proxy.rules.held
    world.wait("a held commit", lambda: proxy.rules.held > before)
    world.kill(who)
    world.hurt("commit of a dead worker arrives after the takeover", who)
    world.start(who, "b")
    world.wait_recovered()
    proxy.hold_commits(0)
    world.start(who)
    world.stop(who, "b")
    world.hurt("the taker of a dead worker's place goes", who)
    world.wait_recovered()


def refused_offsets(place: Place) -> None:
    """The transaction has to be aborted with everything in it already produced; the worker goes on."""
    proxy = _proxy(place)
    who = place.random.choice(["unify", "unify", "identity", "ingest"])
    before = proxy.rules.offsets_refused
    proxy.refuse_offsets(place.random.choice([1, 2, 5]), f".{who}-")
    place.world.wait("a refusal", lambda: proxy.rules.offsets_refused > before)
    place.world.hurt("offsets refused: abort", who)
    place.world.wait("the end of the refusals", lambda: proxy.rules.refuse_offsets == 0)
    place.world.wait_recovered()


def _stopped_at(point: str) -> Callable[[Place], None]:
    return lambda place: zombie(place, point)


FAULTS: tuple[Fault, ...] = (
    Fault("rolling restart of every role", "workers", rolling_restart),
    Fault("scale 1→3→1", "workers", one_three_one),
    Fault("zombie: SIGSTOP past the session, at any moment", "workers", zombie),
    Fault("zombie: SIGSTOP before the offsets", "workers", _stopped_at("before_offsets")),
    Fault("zombie: SIGSTOP after the offsets", "workers", _stopped_at("after_offsets")),
    Fault("zombie: SIGSTOP after the step", "workers", _stopped_at("after_step")),
    Fault("zombie: SIGSTOP after the commit", "workers", _stopped_at("after_commit")),
    Fault("lost local store", "workers", lost_store),
    Fault("foreign transaction on the changelog, store lost", "workers", foreign_transaction),
    Fault("killed while thousands of deadlines are settled", "workers", crowded_deadlines),
    Fault("failing write under the store", "workers", failing_write),
    Fault("damaged store", "workers", damaged_store),
    Fault("full disk under the store", "workers", full_disk),
    Fault("network stalls", "network", stall),
    Fault("connections cut", "network", cut),
    Fault("broker unreachable", "network", unreachable),
    Fault("told that there are no brokers", "network", no_brokers),
    Fault("answer of a commit swallowed", "network", swallowed_answer),
    Fault("commits delayed", "network", slow_commits),
    Fault("commit delayed, its sender killed", "network", delayed_commit),
    Fault("commit of a dead worker after the takeover", "network", late_commit),
    Fault("offsets refused: abort", "network", refused_offsets),
    Fault("broker stopped and started", "broker", broker_restart),
    Fault("broker SIGKILL", "broker", broker_kill),
    Fault("full disk under the broker", "disk", full_broker_disk),
    Fault("SIGKILL of one of three nodes", "cluster", node_kill),
    Fault("restart of one of three nodes", "cluster", node_restart),
)
BY_NAME: dict[str, Fault] = {fault.name: fault for fault in FAULTS}
SETTINGS: dict[str, Any] = {
    setting: [fault for fault in FAULTS if fault.setting == setting]
    for setting in ("workers", "network", "broker", "disk", "cluster")
}
