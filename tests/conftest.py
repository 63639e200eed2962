"""Shared by all tests: one real broker for the whole session, and a workspace of its own for each test on it.

A test that uses `kafka` or `workspace` is marked `kafka` by itself. Run side by side (-n), each worker process starts
its own broker when it first needs one, so that no test waits for, or is disturbed by, another worker's; with
HEADWATER_BOOTSTRAP_SERVERS set, all use that one, told apart by their prefixes.
"""

import logging
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from pipeline.broker import Kafka, running_kafka
from pipeline.compiled import refuse_what_is_stale
from pipeline.settings import Settings, load
from tests.registry import running_registry

# One machine may be a hundred times slower than another: examples are judged by what they show, not by their time.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", settings.get_profile("default"), max_examples=2_000)
# Processes are started by the hundred. The second compiler of Java takes a third of a broker's start, and pays for
# itself when most of them have ended; and where Python is told to keep no bytecode, each would compile ours anew.
os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
refuse_what_is_stale()
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


# Files are handed to workers whole (--dist loadfile), these first: one of more than half a minute that is begun last
# keeps its worker busy while the other has nothing left to do. A new one belongs here.
LONGEST = (
    "kafka/test_attack.py",
    "kafka/test_docs.py",
    "kafka/test_engine_counting.py",
    "kafka/test_broker.py",
    "kafka/test_kill.py",
    "kafka/test_replay.py",
    "kafka/test_erase.py",
    "kafka/test_main_job.py",
    "kafka/test_deliver.py",
    "kafka/test_sample_shop.py",
    "simulation/test_simulation.py",
    "docs/test_readme.py",
    "simulation/test_replays.py",
    "simulation/test_rules_change.py",
    "simulation/test_lives.py",
    "deploy/test_distributions.py",
    "docs/test_site.py",
)


def pytest_configure(config: pytest.Config) -> None:
    # Of itself pytest-xdist begins with the files of most tests, and ends with those of a single long one.
    config.option.loadscopereorder = False


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    # A command says how much its process logs; here the process goes on, with tests that look at what is logged.
    logging.getLogger().setLevel(logging.WARNING)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {Path(__file__).parent / name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path, len(LONGEST)))
    for item in items:
        if {"kafka", "workspace", "new_workspace"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.kafka)


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka]:
    """The broker of this session, real. Do it no fault: others use it too (start a `LocalKafka` for that)."""
    with running_kafka(load(), temporary=True) as found:
        yield found


@pytest.fixture
def new_workspace(kafka: Kafka, tmp_path: Path) -> Callable[..., Settings]:
    """Makes workspaces on the session's broker, each with a prefix, a state folder and a secret of its own.

    Arguments are settings: `new_workspace(partitions=3)`.
    """

    def make(**given: object) -> Settings:
        name = f"t{secrets.token_hex(4)}"
        values = {
            "bootstrap_servers": kafka.bootstrap_servers,
            "prefix": f"{name}.",
            "state_dir": tmp_path / name,
            "secret": "the secret of a test",
            "partitions": 2,
        }
        return Settings.model_validate(values | given)

    return make


@pytest.fixture(params=["json", "avro"])
def formatted(request: pytest.FixtureRequest) -> Iterator[dict[str, object]]:
    """Settings of either format: `new_workspace(**formatted)`. Every record must then stand in it."""
    if request.param == "json":
        yield {}
        return
    with running_registry() as registry:
        yield {"format": "avro", "schema_registry": {"url": registry.url}}


@pytest.fixture
def workspace(new_workspace: Callable[..., Settings]) -> Settings:
    """A workspace of two partitions. Its topics do not exist yet: `pipeline.admin.create_topics` makes them."""
    return new_workspace()
