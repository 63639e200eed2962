"""A destination on trial is sent nothing; what it would be sent is in a file."""

import json
from pathlib import Path
from typing import Any

from connectors.testing import ERASED, sample_delivery
from pipeline.definitions.destinations import DestinationDefinition
from pipeline.deliver.dry_run import DryRun
from pipeline.deliver.role import opened, policy_of


def defined(**more: Any) -> DestinationDefinition:
    # A secret that is not there: nobody opens it in a dry run.
    body = {"destination": "crm", "kind": "webhook", "url": "https://crm.example.com", "secret": {"env": "NOT_THERE"}}
    return DestinationDefinition.model_validate({**body, "delivery": {"concurrency": 9, "batch": 7}, **more})


def test_everything_stands_in_the_file_and_the_destination_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "out" / "crm.jsonl"
    definition = defined(dry_run=str(path))
    connector = opened(definition)
    assert isinstance(connector, DryRun)
    outcomes = connector.deliver([sample_delivery(n) for n in range(3)])
    assert {one.status for one in outcomes} == {"delivered"}
    assert [json.loads(line)["delivery_id"] for line in path.read_text().splitlines()] == [
        sample_delivery(n).delivery_id for n in range(3)
    ]
    connector.close()
    policy = policy_of(definition)
    assert (policy.concurrency, policy.max_batch, policy.keeps_order) == (1, 500, True)
    assert policy_of(defined()).concurrency == 9


def test_no_more_come_in_a_call_than_the_kind_takes() -> None:
    assert policy_of(defined()).max_batch == 1, "each of seven would be a request of its own, and none is counted"
    ads = {"destination": "ads", "kind": "http", "url": "https://ads.example.com", "body": {"data": "{each}"}}
    many = DestinationDefinition.model_validate({**ads, "each": "{profile_id}", "delivery": {"batch": 7}})
    most = DestinationDefinition.model_validate({**ads, "each": "{profile_id}", "delivery": {"batch": 7_000}})
    assert (policy_of(many).max_batch, policy_of(most).max_batch) == (7, 1_000)


def test_it_remains_what_it_is_for_whoever_decides() -> None:
    assert defined(dry_run="x").compiled() == defined().compiled()


def test_the_receipt_of_an_erasure_says_that_it_was_not_asked(tmp_path: Path) -> None:
    connector = DryRun("crm", tmp_path / "crm.jsonl")
    erased = sample_delivery(2, segment=None, action="profile_erased", body=ERASED)
    outcomes = connector.deliver([sample_delivery(1), erased])
    connector.close()
    assert [one.status for one in outcomes] == ["delivered", "rejected"]
    assert "dry run" in outcomes[1].detail
    assert "ada@example.com" not in (tmp_path / "crm.jsonl").read_text()
