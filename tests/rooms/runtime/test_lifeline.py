"""When a client's statistics say that it has lost every broker."""

import json

import pytest

from pipeline.runtime.kafka.lifeline import Lifeline


def told(*sources: str) -> str:
    """Statistics with brokers that librdkafka knows from there."""
    brokers = {f"broker-{number}": {"name": "x", "source": source} for number, source in enumerate(sources)}
    return json.dumps({"name": "headwater#consumer-1", "type": "consumer", "brokers": brokers, "topics": {}})


@pytest.mark.parametrize("kept", ["configured", "learned"])
def test_a_client_with_a_broker_to_go_to_is_well_also_when_it_is_down(kept: str) -> None:
    lifeline = Lifeline()
    for _ in range(5):
        lifeline.heard(told("logical", kept, "internal"))
    assert not lifeline.is_cut


@pytest.mark.parametrize("left", [(), ("logical",), ("logical", "logical", "internal")])
def test_without_one_it_is_cut_at_the_second_look(left: tuple[str, ...]) -> None:
    lifeline = Lifeline()
    lifeline.heard(told("learned", *left))
    lifeline.heard(told(*left))
    assert not lifeline.is_cut
    lifeline.heard(told(*left))
    assert lifeline.is_cut


def test_a_moment_between_two_addresses_is_nothing() -> None:
    lifeline = Lifeline()
    for _ in range(3):
        lifeline.heard(told("logical"))
        lifeline.heard(told("logical", "configured"))
        assert not lifeline.is_cut
