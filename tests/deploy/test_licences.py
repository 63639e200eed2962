"""What an installation brings along may be brought along, and the bill of materials has all of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.licences import LOOKED_AT, brought_along, is_allowed, licences, refused


@pytest.fixture(scope="module")
def found() -> dict[str, tuple[str, str]]:
    return licences(brought_along())


def test_every_licence_is_allowed(found: dict[str, tuple[str, str]]) -> None:
    assert {"confluent-kafka", "rocksdict", "starlette", "psycopg", "pyarrow"} <= set(found)
    assert {"pytest", "ruff", "matplotlib"} & set(found) == set(), "what developers install is not distributed"
    assert refused(found) == {}, "replace it, or have it looked at: tests/deploy/licences.py"
    assert set(LOOKED_AT) <= set(found), "no longer brought along"


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT", True),
        ("Apache-2.0 OR GPL-3.0-only", True),
        ("Apache-2.0 AND MIT", True),
        ("Apache Software License; BSD License", True),
        ("MIT AND GPL-2.0-only", False),
        ("GNU Affero General Public License v3", False),
        ("GPL-3.0-or-later", False),
        ("UNKNOWN", False),
        ("Other/Proprietary License", False),
        ("", False),
    ],
)
def test_what_is_allowed(licence: str, allowed: bool) -> None:
    assert is_allowed(licence) is allowed
    assert (refused({"a": ("1", licence)}) == {}) is allowed


def test_the_bill_of_materials_has_everything(found: dict[str, tuple[str, str]], tmp_path: Path) -> None:
    """As `make sbom` writes it, of this environment."""
    out = tmp_path / "sbom.json"
    words = [
        "environment",
        sys.executable,
        "--output-format",
        "JSON",
        "--output-file",
        str(out),
        "--output-reproducible",
    ]
    subprocess.run([sys.executable, "-m", "cyclonedx_py", *words], check=True, capture_output=True)
    bill = json.loads(out.read_text())
    assert bill["bomFormat"] == "CycloneDX"
    versions = {
        each["name"].lower().replace("_", "-").replace(".", "-"): each["version"] for each in bill["components"]
    }
    assert {name: version for name, (version, _) in found.items() if versions.get(name) != version} == {}
