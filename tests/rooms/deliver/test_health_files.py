"""What stands in files beside processes: one that cannot be read is left out, whatever is in it."""

from pathlib import Path

import pytest

from pipeline.deliver.health import healths_in
from pipeline.runtime.progress import PATTERN, reports_in

BROKEN = [b"", b"{", b"[]", b'"\xff"', b"\xff", b"[" * 100_000, b'{"a":' * 100_000, b'{"at_ms": 1e999}', b"null"]


@pytest.mark.parametrize("held", BROKEN)
def test_a_broken_file_is_left_out(tmp_path: Path, held: bytes) -> None:
    (tmp_path / "deliver").mkdir()
    (tmp_path / "deliver" / "health-x-0.json").write_bytes(held)
    (tmp_path / PATTERN.replace("*", "0")).write_bytes(held)
    assert healths_in(tmp_path) == {} and reports_in(tmp_path) == []
