"""The alert rules and the dashboard: they load, they ask for metrics that exist, and every alert has its line."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, ProcessCollector

from pipeline.archive.role import ArchiveMetrics
from pipeline.deliver.metrics import DeliverMetrics
from pipeline.runtime.metrics import Metrics, StageCounters

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "monitoring"
RUNBOOK = ROOT / "docs" / "operations" / "alerts.md"
PROMTOOL = shutil.which("promtool")
# What every Prometheus has by itself.
BUILT_IN = {"up"}
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}
# Point 6 of the promise: each of these must be on the dashboard, and what can go wrong must set off an alert.
PROMISED = {
    "headwater_lag_records",
    "headwater_lag_ms",
    "headwater_end_to_end_seconds_bucket",
    "headwater_transactions_committed_total",
    "headwater_transactions_aborted_total",
    "headwater_batch_records_bucket",
    "headwater_batch_seconds_bucket",
    "headwater_partitions_restoring",
    "headwater_restore_records_left",
    "headwater_restore_seconds_left",
    "headwater_ready_seconds",
    "headwater_state_hits_total",
    "headwater_state_loads_total",
    "headwater_state_keys",
    "headwater_state_bytes",
    "headwater_deadlines_due",
    "headwater_deadline_overdue_ms",
    "headwater_dead_letters_total",
}


def catalogue() -> set[str]:
    """Every series that a role can show, and what the rules may use besides."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    Metrics(registry).for_role("unify")
    DeliverMetrics(registry)
    ArchiveMetrics(registry)
    StageCounters(registry, "unify", list)
    return BUILT_IN | {
        family.name + suffix for family in registry.collect() for suffix in SUFFIXES.get(family.type, ("",))
    }


def rules() -> list[dict[str, Any]]:
    loaded = yaml.safe_load((FOLDER / "alerts.yaml").read_text())
    return [rule for group in loaded["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    return [panel for panel in found if panel["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield f"{panel['title']} {target['refId']}", target["expr"]


def asked_for(expression: str) -> set[str]:
    """The names of the series in an expression."""
    return set(re.findall(r"\b(headwater_\w+|process_\w+|up)\b(?=\s*(?:[{\[<>=)]|$|and|offset|==))", expression)) | set(
        re.findall(r"\b(?:headwater|process)_\w+", re.sub(r'"[^"]*"', "", expression))
    )


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_every_metric_asked_for_exists(where: str, expression: str) -> None:
    asked = asked_for(expression)
    assert asked, f"{where} asks for nothing"
    assert asked <= catalogue(), f"{where} asks for {sorted(asked - catalogue())}"


def test_a_metric_that_does_not_exist_is_found() -> None:
    assert asked_for('sum(rate(headwater_mistyped_total{role="unify"}[5m]))') - catalogue() == {
        "headwater_mistyped_total"
    }


def test_every_promised_metric_is_on_the_dashboard() -> None:
    shown = {name for panel in panels() for target in panel["targets"] for name in asked_for(target["expr"])}
    assert sorted(PROMISED - shown) == []


def test_every_alert_has_its_line_in_the_runbook_and_the_runbook_no_other() -> None:
    headings = re.findall(r"^## (Headwater\w+)$", RUNBOOK.read_text(), re.MULTILINE)
    alerts = [rule["alert"] for rule in rules()]
    assert sorted(headings) == sorted(alerts) and len(set(alerts)) == len(alerts)
    for rule in rules():
        assert rule["annotations"]["runbook"] == f"docs/operations/alerts.md#{rule['alert'].lower()}"
        assert rule["annotations"]["summary"] and rule["labels"]["severity"] in ("page", "warn")


def test_panels_say_what_they_show() -> None:
    titles = [panel["title"] for panel in panels()]
    assert len(set(titles)) == len(titles)
    assert all(panel["fieldConfig"]["defaults"]["unit"] for panel in panels())


def promtool(*words: str) -> None:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *words], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is in the package prometheus")


@pytest.mark.debian
@needs_promtool
def test_prometheus_loads_configuration_and_rules() -> None:
    promtool("check", "config", str(FOLDER / "prometheus.yaml"))


@pytest.mark.debian
@needs_promtool
def test_alerts_are_set_off_by_what_they_are_for() -> None:
    promtool("test", "rules", str(ROOT / "tests" / "monitoring" / "alerts_test.yaml"))


@pytest.mark.debian
@needs_promtool
def test_prometheus_understands_every_panel(tmp_path: Path) -> None:
    """As recording rules: the only way to have promtool read an expression."""
    fillings = (("$__rate_interval", "1m"), ("$role", ".*"))
    written = []
    for number, panel in enumerate(panels()):
        for target in panel["targets"]:
            expression = target["expr"]
            for name, filling in fillings:
                expression = expression.replace(name, filling)
            written.append({"record": f"panel:{number}:{target['refId']}", "expr": expression})
    (tmp_path / "panels.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": written}]}))
    promtool("check", "rules", str(tmp_path / "panels.yaml"))
