"""The alert rules and the dashboard: they load, they ask for metrics that exist, and every alert has its line."""

import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml
from prometheus_client import CollectorRegistry, ProcessCollector

from pipeline.api.metrics import ApiMetrics
from pipeline.api.service import Service
from pipeline.archive.role import ArchiveMetrics
from pipeline.broker import free_port
from pipeline.collector.metrics import CollectorMetrics
from pipeline.deliver.metrics import DeliverMetrics
from pipeline.observed import served
from pipeline.runtime.metrics import Metrics, StageCounters
from pipeline.settings import Settings
from pipeline.sources.pulling import PullMetrics

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


OF_AN_API: dict[str, Any] = {
    "requests": {},
    "follower": SimpleNamespace(is_ready=True),
    "age_ms": lambda: 0,
    "hub": SimpleNamespace(count=0),
}


def catalogue() -> set[str]:
    """Every series that a role can show, and what the rules may use besides."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    Metrics(registry).for_role("unify")
    DeliverMetrics(registry)
    ArchiveMetrics(registry)
    CollectorMetrics(registry)
    PullMetrics(registry)
    ApiMetrics(registry, cast(Service, SimpleNamespace(**OF_AN_API)))
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


def test_a_process_that_ends_begins_no_answer() -> None:
    """The thread of a request that begins in an interpreter that is going crashes the process."""
    code = (
        "import atexit, sys; from pipeline.observed import served; from pipeline.settings import Settings\n"
        "atexit.register(lambda: (print('ends', flush=True), sys.stdin.readline()))\n"
        "served(Settings(metrics_port=int(sys.argv[1]))); print('works', flush=True); sys.stdin.readline()"
    )
    port = free_port()

    def answers() -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as asking:
            asking.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            return asking.recv(8) == b"HTTP/1.0"
        return False

    with subprocess.Popen(
        [sys.executable, "-c", code, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        found = []
        for _ in range(2):
            found.append((process.stdout.readline().strip(), answers()))
            process.stdin.write("\n")
            process.stdin.flush()
        assert process.wait(60) == 0
    assert found == [("works", True), ("ends", False)]


def test_every_role_tells_of_its_process() -> None:
    """Or nobody hears that it starts again and again."""
    written = {path.relative_to(ROOT).as_posix(): path.read_text() for path in (ROOT / "pipeline").rglob("*.py")}
    # A role that rests tells so at the place where it would serve otherwise.
    assert {path for path, text in written.items() if "start_http_server" in text} == {
        "pipeline/observed.py",
        "pipeline/replay/turns.py",
    }
    registry = served(Settings.model_validate({"metrics_port": None}))
    told = {family.name for family in registry.collect()}
    assert {"process_start_time_seconds", "process_resident_memory_bytes"} <= told


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


OF_A_WORKER = 'instance="a", role="unify"'
# Of each alert: series every 15 s (every 5 min in SLOW) that set it off, when it is to be there, and when to be gone.
SET_OFF: dict[str, tuple[dict[str, str], str, str]] = {
    "RoleDown": ({'up{job="headwater", instance="a"}': "1x4 0x20 1x40"}, "5m", "8m"),
    "RestartsAgainAndAgain": (
        {'process_start_time_seconds{job="headwater", instance="a"}': "1 1 2 2 3 3 4 4 5x100"},
        "4m",
        "20m",
    ),
    "StandsStill": (
        {
            f"headwater_lag_records{{{OF_A_WORKER}}}": "50x40 0x40",
            f"headwater_transactions_committed_total{{{OF_A_WORKER}}}": "7x80",
            f"headwater_partitions_restoring{{{OF_A_WORKER}}}": "0x80",
        },
        "8m",
        "12m",
    ),
    "FallsBehind": (
        {
            f"headwater_lag_ms{{{OF_A_WORKER}}}": "90000x80",
            f"headwater_lag_records{{{OF_A_WORKER}}}": "5000x40 0x40",
        },
        "9m",
        "12m",
    ),
    "Slow": (
        {
            f'headwater_end_to_end_seconds_bucket{{{OF_A_WORKER}, le="2.5"}}': "0+9x80 720x80",
            f'headwater_end_to_end_seconds_bucket{{{OF_A_WORKER}, le="10.0"}}': "0+10x80 800x80",
            f'headwater_end_to_end_seconds_bucket{{{OF_A_WORKER}, le="+Inf"}}': "0+10x80 800x80",
            f"headwater_end_to_end_seconds_count{{{OF_A_WORKER}}}": "0+10x80 800x80",
        },
        "19m",
        "30m",
    ),
    "Aborts": (
        {
            f"headwater_transactions_aborted_total{{{OF_A_WORKER}}}": "0+3x40 120x80",
            f"headwater_transactions_committed_total{{{OF_A_WORKER}}}": "0+9x120",
        },
        "9m",
        "20m",
    ),
    "TransactionsSlow": (
        {
            f'headwater_transaction_seconds_bucket{{{OF_A_WORKER}, le="1.0"}}': "0x40 0+9x80",
            f'headwater_transaction_seconds_bucket{{{OF_A_WORKER}, le="2.5"}}': "0+9x120",
            f'headwater_transaction_seconds_bucket{{{OF_A_WORKER}, le="+Inf"}}': "0+9x120",
        },
        "9m",
        "20m",
    ),
    "RestoreStands": (
        {
            f"headwater_partitions_restoring{{{OF_A_WORKER}}}": "2x80",
            f"headwater_restored_records_total{{{OF_A_WORKER}}}": "900x30 900+50x80",
        },
        "6m",
        "12m",
    ),
    "RestoresLong": ({f"headwater_partitions_restoring{{{OF_A_WORKER}}}": "2x80 0x20"}, "19m", "22m"),
    "MovesAgainAndAgain": ({f"headwater_rebalances_total{{{OF_A_WORKER}}}": "0+1x20 20x100"}, "5m", "20m"),
    "Poison": (
        {'headwater_dead_letters_total{instance="a", role="unify", reason="step raised"}': "0x8 1x100"},
        "4m",
        "20m",
    ),
    "RefusesMuch": (
        {
            'headwater_dead_letters_total{instance="a", role="ingest", reason="not_json"}': "0+9x90 810x90",
            'headwater_ingested_total{instance="a", outcome="emitted"}': "0+90x180",
        },
        "21m",
        "40m",
    ),
    "DeadlinesOverdue": ({f"headwater_deadline_overdue_ms{{{OF_A_WORKER}}}": "90000x40 0x40"}, "9m", "12m"),
    "CacheSmall": (
        {
            f"headwater_state_loads_total{{{OF_A_WORKER}}}": "0+90x180",
            f"headwater_state_hits_total{{{OF_A_WORKER}}}": "0+9x180",
            f"headwater_lag_records{{{OF_A_WORKER}}}": "5000x100 0x80",
        },
        "24m",
        "30m",
    ),
    "StateGrows": ({f"headwater_state_bytes{{{OF_A_WORKER}}}": "2e9x288 4e9x15 2.5e9x20"}, "25h", "25h40m"),
    "BackfillStands": ({f"headwater_history_records_left{{{OF_A_WORKER}}}": "900x90 900-10x89"}, "22m", "26m"),
    "ArchiveBehind": ({'headwater_archive_lag_seconds{instance="a"}': "1200x60 30x20"}, "14m", "17m"),
    "CollectorTurnsAway": (
        {
            'headwater_collector_ready{instance="a"}': "1x20 0x20 1x60",
            'headwater_collector_requests_total{instance="b", path="/v1/batch", status="503"}': "0x20 0+9x20 180x60",
            'headwater_collector_requests_total{instance="b", path="/v1/batch", status="200"}': "0+9x100",
        },
        "9m",
        "15m",
    ),
    "ApiBehind": (
        {'headwater_api_ready{instance="a"}': "0x60 1x20", 'headwater_api_age_ms{instance="a"}': "20x80"},
        "14m",
        "17m",
    ),
    "SourceDown": ({'headwater_source_up{instance="a", source="shop"}': "0x40 1x20"}, "9m", "12m"),
    "DestinationDown": ({'headwater_deliver_up{instance="a", destination="crm"}': "0x40 1x20"}, "9m", "12m"),
    "DeliveriesGivenUp": (
        {'headwater_deliver_dead_letters_total{instance="a", destination="crm", reason="rejected"}': "0x8 1x100"},
        "4m",
        "20m",
    ),
    "DeliveriesLate": (
        {
            'headwater_deliver_latency_seconds_bucket{instance="a", destination="crm", le="30.0"}': "0x180",
            'headwater_deliver_latency_seconds_bucket{instance="a", destination="crm", le="300.0"}': "0+9x180",
            'headwater_deliver_latency_seconds_bucket{instance="a", destination="crm", le="+Inf"}': "0+9x180",
            'headwater_deliver_open{instance="a", destination="crm"}': "50x90 0x90",
        },
        "21m",
        "30m",
    ),
}


SLOW = {"StateGrows"}


@pytest.mark.debian
@needs_promtool
@pytest.mark.parametrize(("every", "names"), [("15s", SET_OFF.keys() - SLOW), ("5m", SLOW)], ids=["15s", "5m"])
def test_every_alert_is_set_off_and_ends(every: str, names: set[str], tmp_path: Path) -> None:
    assert {f"Headwater{name}" for name in SET_OFF} == {rule["alert"] for rule in rules()}

    def firing(name: str, at: str, samples: list[dict[str, Any]]) -> dict[str, Any]:
        asked = f'count by (alertname) (ALERTS{{alertname="Headwater{name}", alertstate="firing"}}) > bool 0'
        return {"expr": asked, "eval_time": at, "exp_samples": samples}

    (tmp_path / "every.yaml").write_text(
        yaml.safe_dump(
            {
                "rule_files": [str(FOLDER / "alerts.yaml")],
                "evaluation_interval": every,
                "tests": [
                    {
                        "interval": every,
                        "input_series": [{"series": one, "values": values} for one, values in series.items()],
                        "promql_expr_test": [
                            firing(name, then, [{"labels": f'{{alertname="Headwater{name}"}}', "value": 1}]),
                            firing(name, gone, []),
                        ],
                    }
                    for name, (series, then, gone) in SET_OFF.items()
                    if name in names
                ],
            }
        )
    )
    promtool("test", "rules", str(tmp_path / "every.yaml"))


@pytest.mark.debian
@needs_promtool
def test_one_workspace_hides_nothing_of_another(tmp_path: Path) -> None:
    """Two releases of the chart: what one has too much of is not made up for by the other."""
    much = 'headwater_dead_letters_total{workspace="small", role="ingest", reason="not_json"}'
    (tmp_path / "two.yaml").write_text(
        yaml.safe_dump(
            {
                "rule_files": [str(FOLDER / "alerts.yaml")],
                "evaluation_interval": "15s",
                "tests": [
                    {
                        "interval": "15s",
                        "input_series": [
                            {"series": much, "values": "0+9x90"},
                            {"series": 'headwater_ingested_total{workspace="small"}', "values": "0+90x90"},
                            {"series": 'headwater_ingested_total{workspace="large"}', "values": "0+9000x90"},
                        ],
                        "promql_expr_test": [
                            {
                                "expr": 'count by (workspace) (ALERTS{alertstate="firing"})',
                                "eval_time": "21m",
                                "exp_samples": [{"labels": '{workspace="small"}', "value": 1}],
                            }
                        ],
                    }
                ],
            }
        )
    )
    promtool("test", "rules", str(tmp_path / "two.yaml"))


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
