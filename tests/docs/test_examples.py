"""The examples run as their pages say, and their definitions are valid."""

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import build
from pipeline.definitions.catalog import Catalog, generation_plan
from pipeline.definitions.loader import load
from pipeline.topology import TOPICS

ROOT = Path(__file__).parents[2]
JOURNEY = ROOT / "examples" / "trial_journey"
COMMANDS = re.findall(r"^headwater (test .*)$", (JOURNEY / "README.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    "command", COMMANDS, ids=[command.split()[1] + command.split("--at ")[1] for command in COMMANDS]
)
def test_the_journey_goes_as_its_page_says(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    done = CliRunner().invoke(build(["test"]), shlex.split(command))
    assert done.exit_code == 0, done.output


def test_the_journey_can_be_applied() -> None:
    from pipeline.definitions.apply import plan_apply
    from pipeline.definitions.log import checked_leaves

    assert len(COMMANDS) == 7
    planned = plan_apply(Catalog(), load([JOURNEY / "definitions.yaml"]), leaves_of=checked_leaves, applied_at=1)
    assert planned.generation is not None
    plan = generation_plan(Catalog().with_definitions(planned.definitions), planned.generation)
    assert plan.activation.named("reminder_mails").changes == {"entered"}


CONNECT = sorted((ROOT / "examples" / "kafka_connect").glob("*.json"))


@pytest.mark.parametrize("path", CONNECT, ids=[path.stem for path in CONNECT])
def test_kafka_connect_reads_topics_that_are_there_committed_and_with_no_secret(path: Path) -> None:
    config = json.loads(path.read_text())["config"]
    topics = {f"headwater.{topic.name}": topic for topic in TOPICS}
    assert config["topics"] in topics
    assert config["consumer.override.isolation.level"] == "read_committed"
    assert config["value.converter.schemas.enable"] == "false"
    for name, value in config.items():
        if "password" in name or name.endswith("uri"):
            assert value.startswith("${env:"), name
    if topics[config["topics"]].cleanup == "compact":
        tombstones = config.get("behavior.on.null.values") or config.get("delete.on.null.values")
        assert tombstones in ("delete", "true"), "who is no more has to leave"


def test_there_are_configurations() -> None:
    assert len(CONNECT) == 3
