"""What is installed only where `headwater apply` and the role in question run: every other role goes on without it."""

from pathlib import Path
from typing import Any

import pytest

from connectors import Connector, Options, registry
from connectors.registry import _BUILT_IN, mode_of
from pipeline.definitions.catalog import Catalog
from pipeline.definitions.destinations import compile_destinations
from pipeline.definitions.loader import InvalidDefinitionsError, load_text
from pipeline.definitions.log import KafkaPlans
from pipeline.definitions.sources import compile_sources
from pipeline.errors import DefinitionError, DefinitionsNotThere
from pipeline.records import Definition, Generation, encode
from pipeline.runtime.errors import WorkerStopped
from pipeline.runtime.poison import blame
from pipeline.runtime.ports import Record
from pipeline.settings import Settings

EVENT = {"type": "track", "event": "Ordered", "userId": {"from": "value.customer"}}


def test_a_source_whose_kind_is_not_installed_is_mapped_as_any_other() -> None:
    pull = {"kind": "of_others", "path": "shop.db"}
    plan = compile_sources(
        {
            "orders": {"source": "orders", "topic": "orders", "pull": pull, "event": EVENT},
            "rows": {"source": "rows", "topic": "raw", "pull": pull},
        }
    )
    assert [mapping.source for mapping in plan.mappings] == ["orders"]


@pytest.mark.parametrize("kind", _BUILT_IN)
def test_the_mode_of_a_built_in_kind_needs_none_of_its_packages(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = registry.connector_kind(kind).mode

    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(registry, "import_module", missing)
    registry.connector_kind.cache_clear()
    try:
        [plan] = compile_destinations({"d": {"destination": "d", "kind": kind, "anything": 1}}, frozenset())
    finally:
        registry.connector_kind.cache_clear()
    assert plan.mode == mode_of(kind) == expected


class OfOthers(Connector):
    kind = "of_others"
    mode = "audience"
    options_model = Options


def test_a_kind_of_others_is_written_with_its_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    written = "destination: d\nkind: of_others\n"
    with pytest.raises(InvalidDefinitionsError, match="there is no destination kind"):
        load_text(written)
    with monkeypatch.context() as there:
        there.setattr("pipeline.definitions.destinations.connector_kind", lambda kind: OfOthers)
        there.setattr(registry, "connector_kind", lambda kind: OfOthers)
        [found] = load_text(written)
    assert found.body["mode"] == "audience"
    [plan] = compile_destinations({"d": found.body}, frozenset())
    assert plan.mode == "audience"
    with pytest.raises(DefinitionError, match="apply it again where its package is installed"):
        compile_destinations({"d": {"destination": "d", "kind": "of_others"}}, frozenset())


@pytest.mark.parametrize("ask", [lambda plans: plans(1), KafkaPlans.latest], ids=["a generation", "the newest"])
def test_what_this_version_cannot_read_is_no_fault_of_the_events(
    ask: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later version has applied a key that this one does not know: events would be dead letters, all of them."""
    settings = Settings.model_validate({"state_dir": tmp_path, "secret": "s", "bootstrap_servers": "127.0.0.1:1"})
    plans, catalog = KafkaPlans(settings), Catalog()
    body = {"segment": "s", "when": {"performed": {"event": "E"}}, "of_a_later_version": True}
    catalog.add(b"segment/s/1", encode(Definition("segment", "s", 1, body)))
    catalog.add(b"generation/1", encode(Generation(1, {"segment/s": 1})))
    plans._catalog = catalog
    monkeypatch.setattr(plans, "_look", lambda wait_s=0: None)
    with pytest.raises(DefinitionsNotThere, match="of_a_later_version") as raised:
        ask(plans)
    assert isinstance(blame(raised.value, 0), WorkerStopped)


class OneTopic:
    """Gives what is there the first time it is read, and later what has come."""

    def __init__(self, *_: Any, **__: Any) -> None:
        body = {"segment": "s", "when": {"performed": {"event": "E"}}}
        generation = Generation(1, {"segment/s": 1, "journey/j": 1})
        self._left = [
            (b"journey/j/1", b'{"kind":"journey","name":"j","version":1,"body":{}}'),
            (b"segment/s/1", encode(Definition("segment", "s", 1, body))),
            (b"generation/1", encode(generation)),
        ]

    def read_to_end(self) -> list[Record]:
        return self.read()

    def read(self, *_: Any) -> list[Record]:
        left, self._left = self._left, []
        return [Record("definitions", 0, at, key, value) for at, (key, value) in enumerate(left)]

    def rest(self) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize(
    "ask", [lambda plans: plans(1), KafkaPlans.latest, KafkaPlans.look], ids=["one", "newest", "all"]
)
def test_a_kind_that_this_version_does_not_know_is_no_fault_of_the_events(
    ask: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later version has applied it: events would be dead letters, or, as what stands behind it had been passed over,
    be read with no definitions at all."""
    monkeypatch.setattr("pipeline.definitions.log.TopicReader", OneTopic)
    settings = Settings.model_validate({"state_dir": tmp_path, "secret": "s", "bootstrap_servers": "127.0.0.1:1"})
    plans = KafkaPlans(settings, timeout_s=0.1)
    for _ in range(2):
        with pytest.raises(DefinitionsNotThere, match="journey/j/1 cannot be read here") as raised:
            ask(plans)
        assert isinstance(blame(raised.value, 0), WorkerStopped)
