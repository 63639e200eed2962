"""Documents are put together from sections that were encoded earlier; nobody may be able to tell."""

import msgspec
import pytest

from pipeline.records import ProfileDocument
from tests.rooms.unify.harness import HOUR, MINUTE, World
from tests.rooms.unify.test_cases import ALL, ANN, MAIL, TAB

_encode = msgspec.json.Encoder(order="deterministic").encode


def check_bytes(world: World) -> int:
    """Every document is, byte for byte, what encoding it whole gives; how many were looked at."""
    documents = list(world.compacted["profiles"].values())
    for value in documents:
        assert value == _encode(msgspec.json.decode(value, type=ProfileDocument))
    return len(documents)


@pytest.mark.parametrize("seed", range(8))
def test_documents_of_sections_are_those_encoded_whole(seed: int) -> None:
    world = World(ALL, seed)
    for minute in range(12):
        consent = {"ads": minute % 2 == 0} if minute > 3 else None
        traits = {"plan": None if minute == 5 else minute, "city": "Graz"} if minute % 3 == 0 else {}
        identifiers = (ANN, MAIL, TAB)[: 1 + minute // 4]
        world.send(
            *identifiers,
            at=minute * MINUTE,
            event=("Page Viewed", "Order Completed")[minute % 2],
            traits=traits,
            context={"consent": consent} if consent else {},
        )
        world.work(seed % 4)
        check_bytes(world)
    world.rest(3 * HOUR)
    assert check_bytes(world)
    world.check()
