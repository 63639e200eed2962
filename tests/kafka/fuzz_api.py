"""Requests of every kind, made from the OpenAPI document, valid and not, against an API that runs, with the pipeline
behind its doors: no failure of ours, answers as the document says them, nobody down afterwards.

    python -m tests.kafka.fuzz_api --examples 300

300 of each kind are some 21,000 requests. Not part of the suite: tests/rooms/api/test_fuzz.py asks a few of each.
"""

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

from bench.workspace import broker
from pipeline.admin import create_topics
from pipeline.settings import Settings
from tests.kafka.deployment import Deployment
from tests.kafka.test_api import DEFINITIONS, Api, view
from tests.rooms.api.test_fuzz import CHECKS, STREAMS

ROLES = ("ingest", "identity", "unify")
_SLOW = ("applyDefinitions", "changeDefinitions", "traceEvent", "askPrivacy", "unlink", "relink", "replayDeadLetters")


def ask_everything(api: Api, examples: int, statuses: Counter[int]) -> list[str]:
    """What was found wrong; `statuses` counts the answers."""
    schema = schemathesis.openapi.from_url(f"{api.url}/openapi.json")
    wrong: list[str] = []
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
        for result in schema.get_all_operations():
            operation = result.ok()
            name = operation.definition.raw["operationId"]
            if name in STREAMS:
                continue
            count = max(10, examples // 3) if name in _SLOW else examples

            @settings(max_examples=count, suppress_health_check=list(HealthCheck), deadline=None, database=None)
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: Any) -> None:
                for patience in ("timeout_ms", "wait_ms", "patience_ms"):
                    if case.query and str(case.query.get(patience, "")).isdigit():
                        case.query[patience] = min(int(case.query[patience]), 20)
                if case.query and "wait_for" in case.query:
                    case.query["timeout_ms"] = 20
                answer = case.call(headers={"Authorization": f"Bearer {api.token}"})
                statuses[answer.status_code] += 1
                case.validate_response(answer, checks=CHECKS)

            try:
                ask()
            except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - every kind of finding is told at the end
                found = "; ".join(map(str, getattr(error, "exceptions", [error])))
                wrong.append(f"{name} ({mode.value}): {found[:1_500]}")
            print(f"{statuses.total()} {name} {mode.value}", flush=True)
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=300)
    chosen = parser.parse_args()
    statuses: Counter[int] = Counter()
    with tempfile.TemporaryDirectory() as folder, broker() as kafka:
        values = {"bootstrap_servers": kafka.address, "state_dir": Path(folder), "secret": "fuzz", "partitions": 2}
        own = Settings.model_validate(values)
        create_topics(own)
        with Deployment(own, Path(folder)) as deployment:
            roles = [deployment.start(role) for role in ROLES]
            deployment.apply(DEFINITIONS)
            api = Api(deployment)
            api.start()
            deployment.produce([view("42", messageId=str(n), anonymousId="f3a1") for n in range(3)])
            begin = time.monotonic()
            wrong = ask_everything(api, chosen.examples, statuses)
            print(f"{statuses.total()} requests in {time.monotonic() - begin:.0f} s: {dict(sorted(statuses.items()))}")
            # Whatever came through the doors: the pipeline goes on, and the API with it.
            deployment.produce([view("after", messageId="after")])
            headers = {"Authorization": f"Bearer {api.token}"}
            url = f"{api.url}/v1/profiles/user_id:after"
            deployment.wait_until(lambda: httpx.get(url, headers=headers).status_code == 200, "who comes afterwards")
            down = [role.words[0] for role in (*roles, api.role) if role.process.poll() is not None]
            failed = [line for line in api.role.log.read_text().splitlines() if " failed: " in line]
    for line in (*wrong, *failed, *(f"{role} is down" for role in down)):
        print("WRONG", line)
    raise SystemExit(1 if wrong or failed or down else 0)


if __name__ == "__main__":
    main()
