"""What `headwater up` keeps for its next run: broken, it is told, and what was never there is no mistake."""

from pathlib import Path

import pytest

from pipeline.broker import folder, local
from pipeline.errors import BrokerError, InputError
from pipeline.settings import Settings
from pipeline.up.session import Sample

BROKEN = [b"", b"{", b"[]", b"3", b"\xff", b"[" * 100_000]
SHOP = Path(__file__).parents[2] / "deploy" / "sample"


@pytest.mark.parametrize("held", BROKEN)
def test_what_is_broken_is_told_by_its_place(tmp_path: Path, held: bytes) -> None:
    for name in ("cluster.json", "sample.json"):
        (tmp_path / name).write_bytes(held)
    with pytest.raises(BrokerError) as caught:
        local._kept_in(tmp_path / "cluster.json")
    assert caught.value.where == str(tmp_path / "cluster.json") and caught.value.what_to_do
    with pytest.raises(InputError) as asked:
        Sample(SHOP, Settings(state_dir=tmp_path))
    assert asked.value.where == str(tmp_path / "sample.json") and asked.value.what_to_do


def test_what_was_kept_is_found_again(tmp_path: Path) -> None:
    assert local._kept_in(tmp_path / "cluster.json") == {}
    first = Sample(SHOP, Settings(state_dir=tmp_path))
    first.receiver.close()
    again = Sample(SHOP, Settings(state_dir=tmp_path))
    again.receiver.close()
    assert again.environment == first.environment and not again.played


@pytest.mark.parametrize("held", [*BROKEN, b"{}", b"null"])
def test_an_address_that_is_none_is_nobodys(tmp_path: Path, held: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "is_locked", lambda _: True)
    (tmp_path / folder._ADDRESS).write_bytes(held)
    assert folder.announced(tmp_path) is None
