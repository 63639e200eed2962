"""Every shell block of README and docs is run by a test, or says why not: `pytest -rs` lists those that are not."""

import re
import subprocess

import pytest

from tests.docs.pages import BLOCKS, PAGES, ROOT, Block
from tests.docs.test_commands import COMMANDS
from tests.kafka.test_docs import RUN

_OF_THE_README = "tests/docs/test_readme.py"


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_is_run_or_says_why_not(block: Block) -> None:
    if block.how == "not run":
        assert len(block.why) > 10, "say why"
        for place in re.findall(r"tests/[a-z_/]+\.py", block.why):
            assert (ROOT / place).is_file(), place
        pytest.skip(f"not run: {block.why}")
    if block.page != "README.md":  # its blocks are run by test_readme.py
        assert block.page in RUN, "tests/kafka/test_docs.py runs the pages that it names"
    assert subprocess.run(["bash", "-n"], input=block.text, text=True, check=False).returncode == 0


def test_no_command_hides_in_an_indented_block() -> None:
    """It could not be marked."""
    ours = "|".join(COMMANDS.commands)
    begins = re.compile(rf"^    (?:headwater (?:{ours})|curl|pip install|make [a-z]|python -m)\b")
    found = []
    for page in PAGES:
        outside = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        found += [f"{page.name}: {line}" for line in outside.splitlines() if begins.match(line)]
    assert found == []


def test_most_blocks_are_run() -> None:
    run = [block for block in BLOCKS if block.how != "not run"]
    assert len(run) > 25 and len(run) > 2 * len(BLOCKS) / 3
