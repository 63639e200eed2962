"""The tutorial, and the commands of the other pages, typed by somebody who has nothing but an empty folder.

Everything happens in one folder, on one workspace, one page after the other, each block in a shell of its own that has
the variables of those before it. What a page speaks of and does not show how to make stands in `GIVEN`.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from pipeline.broker import Kafka
from pipeline.broker.local import free_port
from tests.docs.pages import ROOT, Block, blocks

TUTORIAL = "docs/tutorial.md"
# In this order: the tutorial makes the people that the others speak of, erasing one comes last but for pruning all.
RUN = (
    TUTORIAL,
    "docs/segments.md",
    "docs/collector.md",
    "docs/sources.md",
    "docs/contracts.md",
    "docs/api.md",
    "docs/ui.md",
    "docs/predictions.md",
    "docs/operations/running.md",
    "docs/operations/deploying.md",
    "docs/privacy.md",
    "docs/definitions.md",
)

_CURIOUS = "segment: curious\nwhen: {performed: {event: Page Viewed, count: {at_least: 2}, within: 7d}}\n"
_VISITS = "".join(
    f'{{"type": "page", "userId": "{who}", "timestamp": "2026-02-27T09:00:0{n}Z", "properties": {{"path": "/"}}}}\n'
    for who in ("ada", "bob")
    for n in range(2)
)
_ORDER = '{"type": "track", "event": "Order Completed", "userId": "ada", "properties": {"total": 3}}\n'
_PAGE = '{"type": "page", "userId": "ada", "properties": {"path": "/pricing"}}\n'
_CONTRACT = """contract: billing
sources: [billing]
events: {Order Completed: {properties: {total: {type: number}}}}
"""
_ADS = """segment: trial_started
when: {performed: {event: Trial Started}}
---
destination: ads
kind: file
segments: [curious, trial_started]
path: ads.jsonl
---
destination: crm
kind: file
segments: [curious]
path: crm.jsonl
"""
GIVEN = {
    "docs/segments.md": {"curious.yaml": _CURIOUS, "segments/curious.yaml": _CURIOUS, "visits.jsonl": _VISITS},
    "docs/contracts.md": {"contracts/billing.yaml": _CONTRACT, "sample.jsonl": _ORDER, "events.jsonl": _PAGE},
    "docs/operations/deploying.md": {
        "segments/trial.yaml": "segment: trial\nwhen: {performed: {event: Trial Started}}\n",
        "fixtures/trial.jsonl": _ORDER.replace("Order Completed", "Trial Started").replace(
            '"userId"', '"timestamp": "2026-03-01T09:00:00Z", "userId"'
        ),
        "staging.yaml": "",
        "production.yaml": "",
    },
}
# What pages beside the tutorial speak of as if it were in force.
IN_FORCE = _CURIOUS + "---\n" + _ADS


class Reader:
    """Somebody at a terminal, in an empty folder where `headwater` is installed."""

    def __init__(
        self, folder: Path, environment: dict[str, str], instead: dict[str, str], doors: dict[str, int]
    ) -> None:
        self.folder = folder
        self.doors = doors
        self.instead = instead
        self._environment = environment
        self._started: list[subprocess.Popen[bytes]] = []
        installed = folder.parent / "bin"
        installed.mkdir()
        for name, arguments in (("headwater", "-m pipeline.cli "), ("python", "")):
            (installed / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments}"$@"\n')
            (installed / name).chmod(0o755)
        self._environment["PATH"] = f"{installed}:{os.environ['PATH']}"

    def types(self, block: Block) -> str:
        """Run a block to its end; what it printed. Fails the test if it ends otherwise than the page says."""
        done = subprocess.run(
            ["bash", "-c", f"set -e\n[ ! -f ../kept ] || . ../kept\n{self._text(block)}\nexport -p > ../kept"],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        said = f"{block}:\n{block.text}\n{done.stdout}\n{done.stderr}"
        if block.how == "fails":
            assert done.returncode != 0 and "Traceback" not in done.stderr, said
        else:
            assert done.returncode == 0, said
        return done.stdout + done.stderr

    def starts(self, block: Block) -> Path:
        """Run a block that goes on; where it writes what it says."""
        log = self.folder.parent / f"{str(block).replace('/', '-')}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", f"[ ! -f ../kept ] || . ../kept\nexec {self._text(block).strip()}"],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._started.append(process)
        return log

    def waits(self, block: Block) -> None:
        """Until a door that was started can be asked; anything else has a moment to end by itself, if it is to."""
        port = next((port for role, port in self.doors.items() if f"run {role}" in block.text), None)
        deadline = time.monotonic() + 180
        while port is not None and time.monotonic() < deadline:
            try:
                urlopen(f"http://localhost:{port}/readyz", timeout=5).close()
                return
            except HTTPError:
                return  # it answers
            except OSError:
                time.sleep(0.1)
        time.sleep(1.5)

    def ends(self, keep: int) -> None:
        """End what was started, the last first, but for the first `keep`; each must have run until now."""
        while len(self._started) > keep:
            process = self._started.pop()
            assert process.poll() is None, "it ended by itself"
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(120)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _text(self, block: Block) -> str:
        text = block.text
        for written, meant in self.instead.items():
            text = text.replace(written, meant)
        return text


@pytest.fixture(scope="module")
def reader(kafka: Kafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("reader") / "shop"
    folder.mkdir()
    ports = {"8088": free_port(), "8090": free_port(), "8091": free_port()}
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HEADWATER_")},
        "PYTHONPATH": str(ROOT),
        "HEADWATER_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "HEADWATER_PREFIX": f"docs{os.getpid()}.",
        "HEADWATER_PARTITIONS": "2",
        "HEADWATER_COLLECTOR__PORT": str(ports["8088"]),
        "HEADWATER_API__PORT": str(ports["8090"]),
        "HEADWATER_UI__PORT": str(ports["8091"]),
        "COLUMNS": "200",
    }
    instead = {f"localhost:{usual}": f"localhost:{port}" for usual, port in ports.items()}
    instead["https://events.shop.example"] = f"http://localhost:{ports['8088']}"
    found = Reader(folder, environment, instead, {"api": ports["8090"], "ui": ports["8091"]})
    try:
        yield found
    finally:
        found.ends(0)


def wait_for(log: Path, text: str) -> None:
    deadline = time.monotonic() + 180
    while text not in log.read_text(errors="replace"):
        assert time.monotonic() < deadline, f"{text!r} was not said:\n{log.read_text(errors='replace')}"
        time.sleep(0.1)


# What the blocks of the tutorial must say, in their order.
SAID = (
    (),
    ('{"success":true}', "Page Viewed  1 ×"),
    ("left_cart at 2026-03-01 09:00:10.000Z: 1 member: user_id:bob", "✓ as expected"),
    ("added segment/left_cart (version 1)", "It is in force", "✓ segment left_cart"),
    ("user_id       ada", "anonymous_id  browser-1", "left_cart  since"),
    ("added destination/mails (version 1)", '"action":"segment_entered"', '"value":"bob"'),
    ("'purchase' is not a", "1 dead letter."),
    ("destination mails    done", "✓ secret: kept in .headwater/secret", "This set-up works."),
)


@pytest.mark.slow
def test_the_tutorial(reader: Reader) -> None:
    said = []
    for block in blocks(ROOT / TUTORIAL):
        if block.how == "runs on":
            wait_for(reader.starts(block), "ready for your events")
        elif block.how != "not run":
            said.append(reader.types(block))
    assert len(said) == len(SAID)
    for text, wanted in zip(said, SAID, strict=True):
        assert [each for each in wanted if each not in text] == [], text


@pytest.fixture(scope="module")
def later(reader: Reader) -> Reader:
    """The same, some days later."""
    (reader.folder / "given.yaml").write_text(IN_FORCE)
    reader.types(Block("given.yaml", 0, "headwater apply given.yaml", "run", ""))
    return reader


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN[1:])
def test_a_page(later: Reader, page: str) -> None:
    """Behind the tutorial, whose `headwater up` still runs."""
    for name, text in GIVEN.get(page, {}).items():
        path = later.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = [block for block in blocks(ROOT / page) if block.how != "not run"]
    for block in found:
        if block.how == "runs on":
            later.starts(block)
            later.waits(block)
        else:
            _learn(later, page, later.types(block))
    later.ends(1)


def _learn(reader: Reader, page: str, said: str) -> None:
    """What stands for a name that only the reader's own workspace has."""
    if page == "docs/operations/running.md" and (letter := re.search(r"^(\d+/\d+)  ", said, re.MULTILINE)):
        reader.instead["2/17"] = letter[1]
    if page == "docs/privacy.md" and (request := re.search(r"Request (\S+) is made", said)):
        reader.instead["20270115-4f1d0a9c3e"] = request[1]
