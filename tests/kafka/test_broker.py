"""The local Kafka: it answers, keeps its data, survives a kill, and never outlives who started it."""

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from pipeline.broker import LocalKafka, find_kafka, running_kafka, start_kafka
from pipeline.broker.jars import distribution, find_java
from pipeline.broker.local import free_port
from pipeline.errors import BrokerError
from pipeline.settings import Settings, load


@pytest.fixture(scope="module")
def cache_dir() -> Path:
    return load().cache_dir


def _create(servers: str, topic: str, copies: int = 1) -> None:
    client = AdminClient({"bootstrap.servers": servers})
    for future in client.create_topics([NewTopic(topic, 1, copies)]).values():
        future.result()


def _write(servers: str, topic: str, *values: str, **properties: object) -> None:
    producer = Producer({"bootstrap.servers": servers, "acks": "all", "message.timeout.ms": 120_000, **properties})
    failures: list[object] = []
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, _: failures.append(error) if error else None)
    assert producer.flush(150) == 0
    assert not failures


def _read(servers: str, topic: str, count: int, within_s: float = 120) -> list[str]:
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "reader", "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    found: list[str] = []
    deadline = time.monotonic() + within_s
    while len(found) < count and time.monotonic() < deadline:
        message = consumer.poll(0.2)
        if message is not None and message.error() is None:
            found.append(message.value().decode())
    consumer.close()
    return found


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _gone_within(seconds: float, *pids: int) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(_alive(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


def test_starts_and_leaves_nothing(cache_dir: Path) -> None:
    distribution(cache_dir)
    kafka = LocalKafka(cache_dir)
    pid = kafka.pid()
    assert _alive(pid)
    kafka.stop()
    assert _gone_within(20, pid)
    assert not kafka.folder.exists()
    kafka.stop()  # twice is no error


def test_killed_and_restarted_it_has_its_address_and_its_data(cache_dir: Path) -> None:
    kafka = LocalKafka(cache_dir)
    try:
        _create(kafka.bootstrap_servers, "kept")
        _write(kafka.bootstrap_servers, "kept", "one", "two")
        assert not kafka.is_down()
        os.kill(kafka.pid(), signal.SIGKILL)  # not by us
        deadline = time.monotonic() + 60
        while not kafka.is_down() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert kafka.is_down() and kafka.pid() == 0
        kafka.restart()
        assert not kafka.is_down()
        _write(kafka.bootstrap_servers, "kept", "three")
        assert _read(kafka.bootstrap_servers, "kept", 3) == ["one", "two", "three"]
    finally:
        kafka.stop()


def test_data_stay_in_their_folder_from_one_run_to_the_next(cache_dir: Path, tmp_path: Path) -> None:
    first = LocalKafka(cache_dir, tmp_path / "kafka")
    _create(first.bootstrap_servers, "kept")
    _write(first.bootstrap_servers, "kept", "one")
    first.stop()
    second = LocalKafka(cache_dir, tmp_path / "kafka")
    try:
        assert second.bootstrap_servers == first.bootstrap_servers, "subscribers keep their address"
        assert _read(second.bootstrap_servers, "kept", 1) == ["one"]
    finally:
        second.stop()
    with pytest.raises(BrokerError, match="holds a Kafka of 1 nodes"):
        LocalKafka(cache_dir, tmp_path / "kafka", nodes=3)


def test_an_address_taken_meanwhile_is_replaced(cache_dir: Path, tmp_path: Path) -> None:
    first = LocalKafka(cache_dir, tmp_path / "kafka")
    first.stop()
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(first.bootstrap_servers.rpartition(":")[2])))
        other.listen()
        second = LocalKafka(cache_dir, tmp_path / "kafka")
        second.stop()
    assert second.bootstrap_servers != first.bootstrap_servers


_CALLER = """
    import sys, time
    from pathlib import Path
    from pipeline.broker import LocalKafka
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    kafka = LocalKafka(Path(sys.argv[1]), folder)
    print(kafka.pid(), kafka._nodes[0]._supervisor.pid, kafka.folder, kafka.bootstrap_servers, flush=True)
    time.sleep(600)
"""


@contextlib.contextmanager
def _caller(cache_dir: Path, *folder: Path) -> Iterator[tuple["subprocess.Popen[str]", int, int, Path]]:
    command = [sys.executable, "-c", textwrap.dedent(_CALLER), str(cache_dir), *map(str, folder)]
    caller = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert caller.stdout is not None
    pid, supervisor, where, _ = caller.stdout.readline().split()
    try:
        yield caller, int(pid), int(supervisor), Path(where)
    finally:
        caller.kill()
        caller.wait()
        caller.stdout.close()


def test_it_ends_when_its_caller_is_killed(cache_dir: Path) -> None:
    with _caller(cache_dir) as (caller, pid, supervisor, folder):
        caller.send_signal(signal.SIGKILL)
        assert _gone_within(60, pid, supervisor)
    assert not (folder / "node-1").exists(), "nobody will read these data again"


def test_it_ends_in_order_when_the_caller_of_kept_data_is_killed(cache_dir: Path, tmp_path: Path) -> None:
    with _caller(cache_dir, tmp_path / "kafka") as (caller, pid, supervisor, folder):
        caller.send_signal(signal.SIGKILL)
        assert _gone_within(60, pid, supervisor)
    assert (folder / "node-1" / "data" / ".kafka_cleanshutdown").exists()
    LocalKafka(cache_dir, folder).stop()


def test_it_ends_even_if_its_supervisor_is_killed(cache_dir: Path) -> None:
    with _caller(cache_dir) as (_, pid, supervisor, _folder):
        os.kill(supervisor, signal.SIGKILL)
        assert _gone_within(60, pid)


def test_a_pipe_kept_open_by_a_grandchild_does_not_keep_it(cache_dir: Path) -> None:
    forking = _CALLER.replace(
        "time.sleep(600)",
        "import os\n    grandchild = os.fork()\n    if grandchild: print(grandchild, flush=True)\n    time.sleep(600)",
    )
    command = [sys.executable, "-c", textwrap.dedent(forking), str(cache_dir)]
    caller = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert caller.stdout is not None
    pid, supervisor = map(int, caller.stdout.readline().split()[:2])
    grandchild = int(caller.stdout.readline())
    try:
        caller.kill()
        caller.wait()
        assert _gone_within(60, pid, supervisor)
        assert _alive(grandchild)
    finally:
        os.kill(grandchild, signal.SIGKILL)
        caller.stdout.close()


def test_ctrl_c_is_for_the_caller_alone(cache_dir: Path) -> None:
    head, _, rest = _CALLER.partition("    print(")
    code = (
        f"{head}    try:\n        print({rest.replace('    time.sleep', '        time.sleep')}"
        "\n    except KeyboardInterrupt:"
        "\n        time.sleep(2); print(kafka.pid(), flush=True); kafka.stop()"
    )
    # Who runs the tests in the background has told them, and so their children, to ignore it.
    heeds = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    command = [sys.executable, "-c", heeds + textwrap.dedent(code), str(cache_dir)]
    caller = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0)
    assert caller.stdout is not None
    pid = int(caller.stdout.readline().split()[0])
    os.killpg(caller.pid, signal.SIGINT)  # what a terminal does
    assert int(caller.stdout.readline()) == pid, "still there when the caller has ended its own work"
    caller.wait(120)
    caller.stdout.close()
    assert _gone_within(20, pid)


@pytest.mark.slow
def test_three_nodes_go_on_without_one(cache_dir: Path) -> None:
    kafka = LocalKafka(cache_dir, nodes=3)
    try:
        _create(kafka.bootstrap_servers, "kept", copies=3)
        _write(kafka.bootstrap_servers, "kept", "one")
        kafka.kill(2)
        _write(kafka.bootstrap_servers, "kept", "two")
        kafka.restart(2)
        _write(kafka.bootstrap_servers, "kept", "three")
        assert _read(kafka.bootstrap_servers, "kept", 3) == ["one", "two", "three"]
    finally:
        kafka.stop()


def test_a_client_can_be_led_through_a_proxy(cache_dir: Path) -> None:
    port = free_port()
    kafka = LocalKafka(cache_dir, proxied_ports=(port,))
    try:
        assert list(kafka.behind) == [port]
        inner = AdminClient({"bootstrap.servers": f"127.0.0.1:{kafka.behind[port]}"})
        (broker,) = inner.list_topics(timeout=120).brokers.values()
        assert broker.port == port, "it announces the proxy's address to who comes that way"
        outer = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
        (broker,) = outer.list_topics(timeout=120).brokers.values()
        assert broker.port != port
    finally:
        kafka.stop()


def test_a_dead_workers_transaction_ends_within_seconds_of_its_time(kafka: LocalKafka) -> None:
    topic = f"open-{time.time_ns()}"
    _create(kafka.bootstrap_servers, topic)
    properties = {
        "bootstrap.servers": kafka.bootstrap_servers,
        "transactional.id": topic,
        "transaction.timeout.ms": 2_000,
    }
    dead = Producer(properties)
    dead.init_transactions(120)
    dead.begin_transaction()
    dead.produce(topic, "never committed")
    dead.flush(120)
    _write(kafka.bootstrap_servers, topic, "behind it")
    assert _read(kafka.bootstrap_servers, topic, 1) == ["behind it"]
    # 2 s until it has expired, and a look every second; by default it is one every ten.
    broker = ConfigResource(ResourceType.BROKER, "1")
    client = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    told = client.describe_configs([broker])[broker].result(120)
    assert told["transaction.abort.timed.out.transaction.cleanup.interval.ms"].value == "1000"
    del dead


def test_two_processes_fill_the_cache_at_once(tmp_path: Path) -> None:
    """Neither sees half of it; with the cache already there, Maven is not asked."""
    fetched: list[object] = []

    def fetch() -> None:
        code = "import sys, pathlib, pipeline.broker.jars as jars; jars.distribution(pathlib.Path(sys.argv[1]))"
        ran = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, capture_output=True)
        fetched.append(ran.returncode)

    threads = [threading.Thread(target=fetch) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fetched == [0, 0]
    kept = [path.name for path in tmp_path.iterdir()]
    assert len([name for name in kept if name.startswith("fetching-")]) == 0
    LocalKafka(tmp_path).stop()


# ------------------------------------------------------------------------------------------------------- the way there


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """No address, no engine, no Java and no Maven."""
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent.sock")
    return Settings(state_dir=tmp_path / "state", cache_dir=tmp_path / "cache")


def test_without_anything_one_message_with_the_three_ways_out(nowhere: Settings) -> None:
    with pytest.raises(BrokerError) as caught, running_kafka(nowhere):
        pass
    text = str(caught.value)
    assert "HEADWATER_BOOTSTRAP_SERVERS" in text
    assert "headwater[docker]" in text
    assert "Java 17 and Maven" in text
    assert "Java 17 or newer was not found" in text, "and what was tried"


def test_java_without_maven_is_told(nowhere: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    java = shutil.which("java", path="/usr/bin:/usr/local/bin:/bin")
    if java is None:
        pytest.skip("java is elsewhere")
    monkeypatch.setenv("JAVA_HOME", str(Path(java).resolve().parent.parent))
    with pytest.raises(BrokerError, match="There is no Kafka to run against") as caught:
        start_kafka(nowhere)
    assert "Maven was not found" in caught.value.where


def test_an_old_java_is_told(nowhere: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = tmp_path / "old" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n")
    java.chmod(java.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "old"))
    with pytest.raises(BrokerError, match="is 11"):
        find_java()


def test_a_configured_kafka_is_taken_as_it_is(nowhere: Settings) -> None:
    with running_kafka(nowhere.with_kafka("kafka.example:9092")) as kafka:
        assert (kafka.bootstrap_servers, kafka.origin) == ("kafka.example:9092", "configured")
        with pytest.raises(BrokerError, match="not a local one"):
            kafka.kill()


def test_without_an_image_the_next_way_is_tried(nowhere: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def container(*_: object) -> None:
        tried.append("docker")
        raise RuntimeError("no such image")

    def local(*_: object) -> None:
        tried.append("local")
        raise BrokerError("Java 17 or newer was not found.", "the PATH")

    monkeypatch.setattr("pipeline.broker.docker.why_not", lambda: None)
    monkeypatch.setattr("pipeline.broker.docker.DockerKafka", container)
    monkeypatch.setattr("pipeline.broker.LocalKafka", local)
    with pytest.raises(BrokerError) as caught:
        start_kafka(nowhere)
    assert tried == ["docker", "local"]
    assert "no such image" in caught.value.where
    tried.clear()
    with pytest.raises(BrokerError):
        start_kafka(nowhere.model_copy(update={"broker": "local"}))
    with pytest.raises(BrokerError):
        start_kafka(nowhere.model_copy(update={"broker": "docker"}))
    assert tried == ["local", "docker"]


def test_other_processes_find_what_up_runs(cache_dir: Path, tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, cache_dir=cache_dir, broker="local")
    with pytest.raises(BrokerError, match="none runs") as caught:
        find_kafka(settings)
    assert "headwater up" in caught.value.what_to_do
    with running_kafka(settings) as kafka:
        assert find_kafka(settings).bootstrap_servers == kafka.bootstrap_servers
        with running_kafka(settings) as same:
            assert (same.bootstrap_servers, same.origin) == (kafka.bootstrap_servers, "running")
        assert find_kafka(settings).bootstrap_servers == kafka.bootstrap_servers, "only its owner stops it"
    with pytest.raises(BrokerError):
        find_kafka(settings)
