"""The topic `keys` is lost: nothing is made in its place, and no event is given up."""

from collections.abc import Callable

import pytest

from pipeline.admin import create_topics, delete_topics
from pipeline.errors import StateError
from pipeline.identifiers import Keys
from pipeline.privacy import vault as vaults
from pipeline.privacy.vault import FollowedVault, ensure_keys
from pipeline.runtime.kafka.doors import TopicReader, produce_all
from pipeline.settings import Settings


def kept_in(settings: Settings, topic: str) -> list[tuple[bytes | None, bytes | None]]:
    with TopicReader(settings, [topic], as_they_stand=True) as reader:
        return [(record.key, record.value) for record in reader.read_to_end()]


def test_keys_that_are_gone_are_not_made_anew_and_work_again_once_they_are_back(
    new_workspace: Callable[..., Settings],
) -> None:
    settings = new_workspace(partitions=2)
    create_topics(settings)
    actor = Keys(settings.secret_bytes()).actor("user_id:ada")
    ensure_keys(settings)
    with FollowedVault(settings) as vault:
        sealed = vault.seal(actor, "Page Viewed", b'{"kind": "event"}')
    produce_all(settings, "events", [(actor, b'{"kind": "marker", "generation": 1, "received": 1}'), (actor, sealed)])
    copy = kept_in(settings, "keys")

    delete_topics(settings, [settings.topic("keys")])
    create_topics(settings)
    with pytest.raises(StateError, match="gone"):
        ensure_keys(settings)
    assert kept_in(settings, "keys") == []

    produce_all(settings, "keys", copy)
    ensure_keys(settings)
    with FollowedVault(settings) as vault:
        assert vault.open(sealed) == b'{"kind": "event"}'


EVENT, SEALED, QUIET = b'{"kind": "event"}', b"\x01", b'{"kind": "caught_up", "received": 1}'


@pytest.mark.parametrize(
    "history",
    [
        pytest.param([SEALED, *[EVENT] * 8], id="sealed first"),
        pytest.param([*[EVENT] * 8, SEALED], id="sealed last"),
        pytest.param([*[QUIET] * 9, SEALED, *[EVENT] * 8], id="sealed first, after a long silence"),
        pytest.param([*[EVENT] * 8, SEALED, *[QUIET] * 9], id="sealed last, before a long silence"),
        pytest.param([*[QUIET] * 9, SEALED, *[QUIET] * 9], id="one event in a long silence"),
        pytest.param([None, b"{", b"\xff", SEALED, None, b"{", b"\xff"], id="among what is no record of ours"),
    ],
)
def test_a_sealed_history_is_seen_at_its_ends_however_long_nothing_came(
    new_workspace: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch, history: list[bytes | None]
) -> None:
    monkeypatch.setattr(vaults, "_LOOKED_AT", 2)
    settings = new_workspace(partitions=1)
    create_topics(settings)
    produce_all(settings, "events", [(b"a", value) for value in history])
    with pytest.raises(StateError, match="gone"):
        ensure_keys(settings)
    assert kept_in(settings, "keys") == []


def test_of_a_long_open_history_only_the_ends_are_read(
    new_workspace: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vaults, "_LOOKED_AT", 2)
    settings = new_workspace(partitions=1)
    create_topics(settings)
    produce_all(settings, "events", [(b"a", EVENT) for _ in range(9)])
    assert len(list(vaults._ends_of_history(settings))) == 4
    ensure_keys(settings)
    assert kept_in(settings, "keys")
