"""The shell blocks of README and docs, and what the pages say of them in remarks above the fence:

<!-- not run: REASON -->    no test runs it, and why
<!-- runs on -->            it runs until somebody ends it; what follows on the page happens meanwhile
<!-- fails -->              it is there to show how something is refused
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")]
_BLOCK = re.compile(
    r"(?:^<!-- (not run|runs on|fails)(?:: ([^>]*?))? -->\n)?^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True)
class Block:
    """A shell block of a page. `how` is what a test does with it, `why` the reason that the page gives."""

    page: str
    number: int
    text: str
    how: Literal["run", "not run", "runs on", "fails"]
    why: str

    def __str__(self) -> str:
        return f"{self.page}#{self.number}"


def blocks(page: Path) -> list[Block]:
    """The blocks of one page, in their order."""
    found = _BLOCK.findall(page.read_text())
    name = str(page.relative_to(ROOT))
    return [Block(name, n, text, how or "run", why) for n, (how, why, text) in enumerate(found, 1)]


BLOCKS = [block for page in sorted(PAGES) for block in blocks(page)]
