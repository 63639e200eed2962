"""The settings of a replay's workspace are those it was begun with, whatever its names look like to YAML."""

from pathlib import Path

import pytest

from pipeline.replay.workspace import settings_file
from pipeline.settings import load


@pytest.mark.parametrize(("old", "new"), [("headwater.", "headwater-2."), ("", "again."), ("1.", "2."), ("on", "off")])
def test_what_is_written_is_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    monkeypatch.chdir(tmp_path)
    given = load(prefix=old, sources=["raw", "/shop.orders", "12"], bootstrap_servers="kafka:9092")
    begun = given.model_copy(update={"prefix": new, "sources_prefix": old, "state_dir": Path(".again")})
    (tmp_path / "headwater.yaml").write_text(settings_file(given, begun))
    read = load()
    assert read.model_dump() == begun.model_dump()
    assert [read.topic(source) for source in read.sources] == [f"{old}raw", "shop.orders", f"{old}12"]
