"""Whoever installs no extra has the commands all the same: what needs one says so when it is used."""

import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).parents[2]
WITHOUT = """
import sys

class NotInstalled:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in {modules}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, NotInstalled)
from pipeline.cli import main
main()
"""


def modules_of_extras() -> set[str]:
    """What is there only where an extra was installed."""
    project = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]
    extras = [one for many in project["optional-dependencies"].values() for one in many]
    asked, always = (
        {canonicalize_name(Requirement(one).name) for one in many} for many in (extras, project["dependencies"])
    )
    return {
        module
        for module, distributions in packages_distributions().items()
        if {canonicalize_name(one) for one in distributions} <= asked - always and not module.startswith("_")
    }


def test_every_command_has_its_help_without_an_extra(tmp_path: Path) -> None:
    modules = modules_of_extras() - {"pipeline", "connectors"}
    assert {"uvicorn", "starlette", "httptools"} <= modules
    program = WITHOUT.format(modules=sorted(modules))
    done = subprocess.run(
        [sys.executable, "-c", program, "--help"],
        check=False,
        cwd=HERE,
        env={"PATH": "", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "explain" in done.stdout and "up" in done.stdout
