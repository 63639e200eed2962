"""`python -m tests.golden.make` (`make golden`): a state folder and the topics of this release, for later ones to read.

It replaces tests/golden/<version>; what stands there of a version that was released is not to be made again.
"""

import argparse
import shutil
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

from tests.golden import layout
from tests.golden.world import Workspace

FOLDER = Path(__file__).parent
STATE, LOGS = "state.tar.gz", "topics.json.gz"


def make(folder: Path) -> None:
    """Let the first part happen; keep the stores and the topics."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as temporary:
        workspace = Workspace(Path(temporary))
        workspace.before()
        workspace.dump(folder / LOGS)
        layout.write(folder)
        for log in Path(temporary).rglob("LOG*"):
            log.unlink()  # RocksDB's own diary: long, and nobody reads it back
        with tarfile.open(folder / STATE, "w:gz") as packed:
            packed.add(temporary, ".")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--version", default=version("headwater"), help="whose it is")
    folder = FOLDER / parser.parse_args().version
    make(folder)
    sizes = ", ".join(f"{file.name} {file.stat().st_size // 1024} kB" for file in sorted(folder.iterdir()))
    print(f"{folder}: {sizes}")


if __name__ == "__main__":
    main()
