"""The topic `keys` is lost: nothing is made in its place, and no event is given up."""

from collections.abc import Callable

import pytest

from pipeline.admin import create_topics, delete_topics
from pipeline.errors import StateError
from pipeline.identifiers import Keys
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
