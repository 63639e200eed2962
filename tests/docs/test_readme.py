"""The paste-able parts of the README, pasted: on a real broker they give what the README promises."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.admin import create_topics
from pipeline.settings import Settings
from tests.kafka.deployment import Deployment

README = (Path(__file__).parents[2] / "README.md").read_text()
[SET_UP, OWN_EVENT, SUBSCRIBE, TRY_A_RULE] = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
[SUBSCRIBER] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
WATCHED = {
    "subscriber.py &": "subscriber.py > told &",
    "sleep 5": "until grep -q memberships told; do sleep 0.1; done",
    "sleep 20": "until grep -q '^exited .* timer$' told; do sleep 0.1; done",
}


@pytest.fixture
def deployment(new_workspace: Callable[..., Settings], tmp_path: Path) -> Iterator[Deployment]:
    # The subscriber names the topics as they are: the prefix of a workspace that nobody configured.
    settings = new_workspace(prefix="headwater.", partitions=2)
    create_topics(settings)
    with Deployment(settings, tmp_path) as running:
        for role in ("ingest", "identity", "unify"):
            running.start(role)
        yield running


@pytest.fixture
def paste(tmp_path: Path) -> Callable[..., str]:
    """Runs a part of the README in a shell, in a folder where `headwater` is installed; what it printed."""
    installed = tmp_path / ".venv" / "bin"
    installed.mkdir(parents=True)
    for name, arguments in (("headwater", "-m pipeline.cli "), ("python", "")):
        (installed / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments}"$@"\n')
        (installed / name).chmod(0o755)
    (installed / "activate").write_text(f'export PATH="{installed}:$PATH"\n')

    def run(part: str, **environment: str) -> str:
        done = subprocess.run(
            ["bash", "-c", "set -e\n. .venv/bin/activate\n" + part],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.getcwd(), **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, f"{part}\n{done.stdout}\n{done.stderr}"
        assert "%4|" not in done.stderr and "%3|" not in done.stderr, "librdkafka speaks to its own log"
        return done.stdout

    return run


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    named = re.findall(r"^make ([a-z-]+)", SET_UP, re.MULTILINE)
    assert named == ["run", "test"]
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in named)


@pytest.mark.slow
def test_your_own_event_segment_and_subscriber(deployment: Deployment, paste: Callable[..., str]) -> None:
    environment = deployment.environment()
    said = paste(OWN_EVENT, **environment)
    assert "added segment/curious" in said
    assert "3 records are in headwater.raw" in said
    assert re.search(r"^user_id +ada", said, re.MULTILINE), "the profile was found by its e-mail"
    assert "segment curious" in said

    # Ten seconds after the first visit she leaves, with no further event.
    def is_over() -> bool:
        changes = deployment.values("segment-changes")
        return bool(changes) and deployment.members("curious") == set()

    deployment.wait_until(is_over, "nobody is curious any more")
    earlier = {(each["profile_id"], each["sequence"]) for each in deployment.values("segment-changes")}

    (deployment.folder / "subscriber.py").write_text(SUBSCRIBER)
    # Somebody at a terminal waits for what they see, and not for a time.
    watched = SUBSCRIBE
    for written, meant in WATCHED.items():
        assert written in watched
        watched = watched.replace(written, meant)
    told = paste(f"{watched}\ncat told", **environment)
    assert re.search(r"^0 memberships$", told, re.MULTILINE), told
    changes = re.findall(r"^(entered|exited) curious ([0-9a-f-]{36}) (\w+)$", told, re.MULTILINE)
    assert changes and changes[-1][0] == "exited", told
    news = [
        each for each in deployment.values("segment-changes") if (each["profile_id"], each["sequence"]) not in earlier
    ]
    assert {(each["change"], each["profile_id"], each["cause"]) for each in news} == set(changes), (
        "nothing is told twice"
    )


def test_a_rule_is_tried_before_anything_runs(tmp_path: Path, paste: Callable[..., str]) -> None:
    definition = re.search(r"cat > curious.yaml <<'EOF'\n(.*?)EOF", OWN_EVENT, re.DOTALL)
    assert definition is not None
    (tmp_path / "curious.yaml").write_text(definition[1])
    said = paste(TRY_A_RULE, HEADWATER_BOOTSTRAP_SERVERS="127.0.0.1:1")
    assert said.count("as expected") == 2
    assert "2026-03-01 09:00:10.000Z ← exited  curious  user_id:ada" in said


def test_every_place_the_readme_leads_to_is_there() -> None:
    places = [place for place in re.findall(r"\]\(([^)#]+)", README) if "://" not in place]
    assert len(places) > 5
    assert [place for place in places if not (Path(__file__).parents[2] / place).exists()] == []


def test_a_python_that_is_too_old_is_told_before_anything_is_installed(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml"):
        (tmp_path / name).write_text((Path(__file__).parents[2] / name).read_text())
    for name, code in (("old", 1), ("new", 0)):
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {code}\n")
        (tmp_path / name).chmod(0o755)

    def install(python: str) -> str:
        command = ["make", "install", f"PYTHON={python and tmp_path / python}"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        return done.stdout

    for python in ("old", "absent", ""):
        assert "Python 3.11 or newer was not found" in install(python) and not (tmp_path / ".venv").exists()
    # What an old one made would keep the old one, whoever makes it anew.
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / "old").rename(tmp_path / ".venv" / "bin" / "python")
    assert "was not found" not in install("new") and not (tmp_path / ".venv").exists()
