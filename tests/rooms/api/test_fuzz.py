"""The API against requests made from its own OpenAPI document, valid and not: never a failure of ours, and what it
answers is what the document says."""

from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from pipeline.api.problems import Problem
from tests.rooms.api.harness import ADA, World, enter, event, profile, show

STREAMS = ("streamProfile", "streamSegment")  # a stream has no end to wait for
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


async def _no_kafka(work: Any) -> Any:
    if work.__qualname__.startswith(("Provenance", "Service._check_place")):
        return work()
    if getattr(work, "__name__", "") == "<lambda>" and work.__qualname__.startswith("World"):
        return work()
    if work.__qualname__.startswith("Privacy.receipt"):
        return None
    raise Problem(422, "There is no Kafka here to write to.")


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_requests_of_every_kind(tmp_path: Path, mode: GenerationMode) -> None:
    world = World(tmp_path)
    world.segment("repeat_buyers")
    ada = profile(ADA, "user_id:42", "email:ada@example.org", segments={"repeat_buyers": 1}, plan="pro")
    world.follower.read([*show(world, ada), *enter(world, "repeat_buyers", ADA), event(world, "user_id:42", 5)])
    world.service.in_thread = _no_kafka  # type: ignore[method-assign]
    wait = world.service.wait
    world.service.wait = lambda true, _: wait(true, 0.001)  # type: ignore[method-assign]
    schema = schemathesis.openapi.from_asgi("/openapi.json", world.app)
    asked = set()
    for result in schema.get_all_operations():
        operation = result.ok()
        name = operation.definition.raw["operationId"]
        if name in STREAMS:
            continue

        @settings(max_examples=15, derandomize=True, suppress_health_check=list(HealthCheck), deadline=None)
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: Any) -> None:
            answer = case.call(headers={"Authorization": "Bearer all"})
            case.validate_response(answer, checks=CHECKS)

        ask()
        asked.add(name)
    assert len(asked) == 35
