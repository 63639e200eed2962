"""Creating and checking the topics of a workspace, on a real broker."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from confluent_kafka.admin import (
    NewPartitions,
    NewTopic,
)

from pipeline.admin import (
    Difference,
    admin_client,
    alter_topics,
    check_topics,
    create_topics,
    delete_topics,
    wanted_topics,
)
from pipeline.errors import BrokerError, TopicsError
from pipeline.settings import Settings
from pipeline.topology import TOPICS


@pytest.fixture
def created(workspace: Settings) -> Iterator[Settings]:
    create_topics(workspace)
    yield workspace
    delete_topics(workspace, [topic.name for topic in wanted_topics(workspace)])


def _one_difference(settings: Settings) -> Difference:
    """The only difference, once the broker has heard of it from the controller."""
    deadline = time.monotonic() + 60
    while not (differences := check_topics(settings)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (difference,) = differences
    return difference


def test_creates_every_topic_as_the_topology_says(workspace: Settings) -> None:
    names = create_topics(workspace, destinations=["crm"])
    expected = {workspace.topic(topic.name) for topic in TOPICS} | {workspace.topic("deliveries.crm")}
    assert set(names) == expected
    found = admin_client(workspace).list_topics().topics
    for topic in TOPICS:
        count = topic.partitions or (1 if topic.output else workspace.partitions)
        assert len(found[workspace.topic(topic.name)].partitions) == count, topic
    assert check_topics(workspace, ["crm"]) == []
    assert create_topics(workspace, ["crm"]) == [], "a second time there is nothing to do"
    delete_topics(workspace, names)


@pytest.mark.parametrize(("partitions", "outputs"), [(2, None), (9, None), (2, 3)])
def test_outputs_have_a_count_of_their_own_and_keep_the_one_they_were_made_with(
    new_workspace: Callable[..., Settings], partitions: int, outputs: int | None
) -> None:
    made = new_workspace(partitions=partitions, output_partitions=outputs)
    names = create_topics(made)
    found = admin_client(made).list_topics().topics
    expected = {(2, None): 1, (9, None): 2, (2, 3): 3}[partitions, outputs]
    of_outputs = {"profiles", "identities", "segment-members", "profile-changes", "segment-changes", "account-alerts"}
    for topic in TOPICS:
        count = expected if topic.name in of_outputs else topic.partitions or partitions
        assert len(found[made.topic(topic.name)].partitions) == count, topic
    assert check_topics(made) == []
    assert check_topics(made.model_copy(update={"output_partitions": 5})) == [], "whoever writes asks for the count"
    delete_topics(made, names)


def test_several_processes_create_at_once(new_workspace: Callable[..., Settings]) -> None:
    workspace = new_workspace()
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: create_topics(workspace), range(4)))
    assert sorted(name for names in made for name in names) == sorted(topic.name for topic in wanted_topics(workspace))
    assert check_topics(workspace) == []
    delete_topics(workspace, [topic.name for topic in wanted_topics(workspace)])


def test_missing_topics_are_told(workspace: Settings) -> None:
    differences = check_topics(workspace)
    assert {each.topic for each in differences} == {topic.name for topic in wanted_topics(workspace)}
    assert all(each.fatal and "headwater topics --create" in each.what_to_do for each in differences)


def test_a_partition_more_is_told_and_not_repaired(created: Settings) -> None:
    client = admin_client(created)
    for future in client.create_partitions([NewPartitions(created.topic("events"), 3)]).values():
        future.result()
    difference = _one_difference(created)
    assert difference.fatal
    assert difference.topic == created.topic("events")
    assert difference.what == "has 3 partitions, not 2"
    assert create_topics(created) == []
    assert len(check_topics(created)) == 1


def test_a_changelog_that_would_be_deleted_with_age_is_fatal(created: Settings) -> None:
    alter_topics(created, {created.topic("unify-changelog"): {"cleanup.policy": "delete"}})
    difference = _one_difference(created)
    assert difference.fatal
    assert "would be deleted" in difference.what


def test_another_retention_is_told_but_is_the_owners_choice(created: Settings) -> None:
    alter_topics(created, {created.topic("segment-changes"): {"retention.ms": "86400000"}})
    difference = _one_difference(created)
    assert not difference.fatal
    assert "retention.ms=86400000" in difference.what


def test_sources_may_have_their_own_partitions_and_owners(new_workspace: Callable[..., Settings]) -> None:
    workspace = new_workspace()
    foreign = f"shop-{workspace.prefix}orders"
    workspace = workspace.model_copy(update={"sources": ("raw", f"/{foreign}")})
    with pytest.raises(TopicsError, match=foreign):
        create_topics(workspace)
    client = admin_client(workspace)
    for future in client.create_topics([NewTopic(foreign, 7, 1)]).values():
        future.result()
    names = create_topics(workspace)
    assert foreign not in names
    assert workspace.topic("raw") in names
    assert check_topics(workspace) == []
    delete_topics(workspace, [*names, foreign])


def test_a_kafka_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.admin._TIMEOUT_S", 0.5)
    nowhere = Settings(bootstrap_servers="127.0.0.1:1", kafka={"log_level": 0})
    with pytest.raises(BrokerError, match="does not answer") as caught:
        create_topics(nowhere)
    assert caught.value.where == "127.0.0.1:1"
    assert caught.value.what_to_do
