"""`headwater topics` and `headwater doctor` as a person runs them: what they say, and what they end with."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import typer.main
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import NewPartitions

from pipeline.admin import admin_client, create_topics, delete_topics
from pipeline.cli import build, command_names
from pipeline.secret_check import check_of, kept_check
from pipeline.settings import Settings

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(workspace: Settings, tmp_path: Path) -> Run:
    def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        settings = {
            "HEADWATER_BOOTSTRAP_SERVERS": workspace.bootstrap_servers or "",
            "HEADWATER_PREFIX": workspace.prefix,
            "HEADWATER_PARTITIONS": str(workspace.partitions),
            "HEADWATER_STATE_DIR": str(workspace.state_dir),
            "HEADWATER_CACHE_DIR": str(tmp_path / "cache"),
            "HEADWATER_SECRET": workspace.secret_bytes().decode(),
        }
        settings |= environment
        if not settings["HEADWATER_SECRET"]:
            del settings["HEADWATER_SECRET"]
        code = "from pipeline.cli import main; main()"
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.getcwd(), **settings},
        )

    return run


def test_topics_are_created_once_and_checked(run: Run, workspace: Settings) -> None:
    missing = run("topics", "--check")
    assert missing.returncode == 1
    assert "headwater topics --create" in missing.stdout
    created = run("topics", "--create", "--destination", "crm")
    assert created.returncode == 0, created.stderr
    assert f"{workspace.prefix}deliveries.crm" in created.stdout
    again = run("topics", "--create")
    assert (again.returncode, again.stdout.strip()) == (0, "all topics were there")
    assert run("topics", "--check").returncode == 0
    shown = run("topics")
    assert shown.returncode == 0
    assert f"{workspace.prefix}segment-changes" in shown.stdout
    other = run("topics", "--check", HEADWATER_PARTITIONS="3")
    assert other.returncode == 1
    assert "has 2 partitions, not 3" in other.stdout


def test_doctor_tells_a_good_set_up(run: Run, workspace: Settings) -> None:
    create_topics(workspace)
    said = run("doctor", "--json")
    findings = [json.loads(line) for line in said.stdout.splitlines()]
    assert [finding for finding in findings if finding["verdict"] != "good"] == [], said.stderr
    assert said.returncode == 0
    assert {"secret", "state folder", "Kafka", "topics", "partitions", "clocks"} <= {
        each["subject"] for each in findings
    }


def test_doctor_tells_the_lag_of_a_group_nobody_works_in(run: Run, workspace: Settings) -> None:
    create_topics(workspace)
    producer = Producer(workspace.client_properties())
    for number in range(7):
        producer.produce(workspace.topic("raw"), b"{}", partition=number % 2)
    producer.flush(120)
    said = run("doctor")
    assert said.returncode == 0
    assert f"! group {workspace.prefix}ingest: 7 records behind, and nobody is working" in said.stdout
    assert "headwater run ingest" in said.stdout
    assert run("doctor", "--strict").returncode == 1
    consumer = Consumer(
        {
            **workspace.client_properties(),
            "group.id": f"{workspace.prefix}ingest",
            "group.instance.id": "0",
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([workspace.topic("raw")])
    read = 0
    while read < 7:
        read += consumer.poll(5) is not None
    consumer.commit(asynchronous=False)
    said = run("doctor")
    assert f"✓ group {workspace.prefix}ingest: 1 working, nothing waits" in said.stdout
    consumer.close()


def test_doctor_tells_topics_that_part_what_belongs_together(run: Run, workspace: Settings) -> None:
    create_topics(workspace)
    client = admin_client(workspace)
    for future in client.create_partitions([NewPartitions(workspace.topic("links"), 3)]).values():
        future.result()
    # The broker has yet to hear of it from the controller.
    while len(client.list_topics(timeout=30).topics[workspace.topic("links")].partitions) < 3:
        time.sleep(0.05)
    said = run("doctor")
    assert said.returncode == 1
    assert "✗ partitions: differ where they must be equal" in said.stdout


def test_doctor_tells_records_from_the_future(run: Run, workspace: Settings) -> None:
    create_topics(workspace)
    producer = Producer(workspace.client_properties())
    producer.produce(workspace.topic("events"), b"{}", timestamp=int((time.time() + 600) * 1000))
    producer.flush(120)
    said = run("doctor")
    assert "! clocks:" in said.stdout
    assert "s after now" in said.stdout


def test_doctor_tells_what_is_wrong_without_a_kafka(run: Run, tmp_path: Path) -> None:
    not_a_folder = tmp_path / "file"
    not_a_folder.write_text("")
    said = run(
        "doctor", HEADWATER_BOOTSTRAP_SERVERS="", HEADWATER_SECRET="", HEADWATER_STATE_DIR=str(not_a_folder / "state")
    )
    assert said.returncode == 1
    assert "✓ secret: none is kept in" in said.stdout
    assert "✗ state folder" in said.stdout
    assert "✗ Kafka: No Kafka is configured" in said.stdout
    assert "headwater up" in said.stdout


def test_an_error_has_no_traceback(run: Run) -> None:
    said = run("topics", HEADWATER_PARTITIONS="none")
    assert said.returncode == 2
    assert said.stderr.startswith("error: The setting `partitions` cannot be used")
    assert "HEADWATER_PARTITIONS" in said.stderr
    assert "Traceback" not in said.stderr
    assert run("topics", "--nonsense").returncode == 2


def test_every_command_has_help_with_an_example() -> None:
    commands = typer.main.get_command(build()).commands
    assert set(commands) == set(command_names())
    for name in command_names():
        helped = [commands[name], *getattr(commands[name], "commands", {}).values()]
        assert any("Example:" in (getattr(each, "help", "") or "") for each in helped), name


def test_a_role_with_another_secret_ends_at_once(run: Run) -> None:
    right, wrong = ({"HEADWATER_SECRET": letter * 32} for letter in "rw")
    assert run("topics", "--create", **right).returncode == 0
    # Who makes them again, or a topic that is missing, changes nothing of it.
    assert run("topics", "--create", "--destination", "crm", **wrong).returncode == 0
    ended = run("run", "deliver", **wrong)
    assert ended.returncode == 2 and "made with another secret" in ended.stderr, ended.stderr
    assert "r" * 32 not in ended.stderr and "w" * 32 not in ended.stderr
    assert "the workspace was made with another one" in run("doctor", **wrong).stdout
    assert "the one that the workspace was made with" in run("doctor", **right).stdout


def test_a_role_that_counts_on_other_partitions_ends_at_once(run: Run) -> None:
    """It would take a history for complete that is not, and the clocks of the partitions it leaves out would stand."""
    secret = {"HEADWATER_SECRET": "r" * 32}
    assert run("topics", "--create", HEADWATER_PARTITIONS="3", **secret).returncode == 0
    for role in ("ingest", "identity", "unify"):
        for wrong in ("2", "4"):
            ended = run("run", role, HEADWATER_PARTITIONS=wrong, **secret)
            assert ended.returncode == 2 and f"made with 3 partitions, and {wrong} are set" in ended.stderr, (
                ended.stderr
            )


def test_a_workspace_of_before_gets_no_check_with_its_missing_topics(workspace: Settings) -> None:
    """Who makes them may be wrong about its secret, and the right ones would be refused."""
    create_topics(workspace)
    assert kept_check(workspace) == check_of(workspace.secret_bytes())
    delete_topics(workspace, [workspace.topic("workspace")])
    assert create_topics(workspace) == [workspace.topic("workspace")]
    assert kept_check(workspace) is None
