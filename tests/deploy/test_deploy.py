"""What is in deploy/ fits the code: roles, settings, ports, and, where the tools are, rendered and validated.

The chart is rendered where helm is (`make helm` builds it), and its objects are held to the schemas of Kubernetes; the
rest of these tests does not need it.
"""

import ast
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from pydantic import BaseModel

from connectors.http import HttpOptions
from pipeline.api.access import TokensFollowed
from pipeline.api.settings import ApiSettings
from pipeline.cli.run import ROLES
from pipeline.collector.settings import CollectorSettings
from pipeline.errors import SettingsError
from pipeline.settings import Settings
from pipeline.ui.settings import UiSettings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "headwater"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE_ORDER = ("ingest", "identity", "unify", "deliver", "privacy", "archive", "source", "collector", "api", "ui")
GROUPS: dict[str, type[BaseModel]] = {"API": ApiSettings, "COLLECTOR": CollectorSettings, "UI": UiSettings}


def is_setting(name: str) -> bool:
    group, _, inner = name.removeprefix("HEADWATER_").partition("__")
    if group == "KAFKA":
        return True
    if inner:
        return group in GROUPS and inner.lower() in GROUPS[group].model_fields
    return group.lower() in Settings.model_fields


def test_every_variable_that_is_set_is_a_setting() -> None:
    text = DOCKERFILE + (DEPLOY / "compose.yaml").read_text() + (CHART / "templates" / "roles.yaml").read_text()
    text += (CHART / "templates" / "_helpers.tpl").read_text() + (CHART / "values.yaml").read_text()
    names = {name.rstrip("_") for name in re.findall(r"HEADWATER_[A-Z_]+", text)} - {
        "HEADWATER_WRITE_KEY",
        "HEADWATER_COMPILE",
    }
    assert len(names) > 8
    assert [name for name in sorted(names) if not is_setting(name)] == []


def test_compose_and_chart_run_every_role() -> None:
    services = COMPOSE["services"]
    run = {service["command"][1] for service in services.values() if service.get("command", [""])[0] == "run"}
    assert run == set(ROLES) == set(VALUES["roles"])


def test_every_service_is_confined() -> None:
    for name, service in COMPOSE["services"].items():
        if service.get("image") == "headwater:local":
            assert service["read_only"] and service["cap_drop"] == ["ALL"], name
            assert service["security_opt"] == ["no-new-privileges:true"], name
        for port in service.get("ports", ()):
            assert str(port).startswith("127.0.0.1:"), f"{name} would be open to everybody: {port}"


def test_roles_with_state_have_a_volume() -> None:
    stateful = {"identity", "unify", "privacy", "api", "ui"}
    for role in ROLES:
        mounted = [volume.partition(":")[2] for volume in COMPOSE["services"][role].get("volumes", ())]
        assert (mounted == ["/state"]) == (role in stateful), role
        assert ("storage" in VALUES["roles"][role]) == (role in stateful), role


def test_ports_are_those_of_the_code() -> None:
    assert VALUES["roles"]["api"]["port"] == ApiSettings.model_fields["port"].default
    assert VALUES["roles"]["collector"]["port"] == CollectorSettings.model_fields["port"].default
    assert VALUES["roles"]["ui"]["port"] == UiSettings.model_fields["port"].default
    exposed = re.search(r"^EXPOSE (.*)$", DOCKERFILE, re.MULTILINE)
    assert exposed is not None and exposed[1].split() == ["8088", "8090", "8091", "9100"]


def test_a_stop_has_the_time_that_the_code_takes() -> None:
    """The collector ends open requests and then hands over what it took; a delivery may take as long as a connector may
    be told to wait."""
    collector = 2 * CollectorSettings.model_fields["stop_timeout_seconds"].default
    longest = next(each.le for each in HttpOptions.model_fields["timeout_seconds"].metadata if hasattr(each, "le"))
    chart = re.search(r"terminationGracePeriodSeconds: (\d+)", (CHART / "templates" / "roles.yaml").read_text())
    assert chart is not None and int(chart[1]) >= max(collector, longest)
    for name, service in COMPOSE["services"].items():
        if service.get("image") == "headwater:local":
            assert int(service.get("stop_grace_period", "10s").removesuffix("s")) >= max(collector, longest), name


def test_the_dashboard_of_compose_finds_its_prometheus() -> None:
    """Whoever opens Grafana would find it empty: each file stands where Grafana, as it is shipped, looks for it."""
    mounted = {
        inside.removesuffix(":ro"): (DEPLOY / outside).resolve()
        for outside, _, inside in (str(one).partition(":") for one in COMPOSE["services"]["grafana"]["volumes"])
        if outside.startswith("./")
    }
    provisioned = {
        kind: [yaml.safe_load(file.read_text()) for at, file in mounted.items() if f"/provisioning/{kind}/" in at]
        for kind in ("datasources", "dashboards")
    }
    [source] = provisioned["datasources"][0]["datasources"]
    assert source["type"] == "prometheus" and source["isDefault"]
    assert source["url"] == "http://prometheus:9090" and "prometheus" in COMPOSE["services"]
    [provider] = provisioned["dashboards"][0]["providers"]
    [shown] = [file for at, file in mounted.items() if Path(at).parent == Path(provider["options"]["path"])]
    assert shown == DEPLOY / "monitoring" / "dashboard.json"


def test_tokens_are_made_where_the_api_does_not_run_yet(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="There are no tokens"):
        TokensFollowed(tmp_path / "tokens.yaml")
    said = (DEPLOY / "compose.yaml").read_text()
    assert "exec api" not in said
    assert {"tokens", "users"} <= set(re.findall(r"run --rm api (\w+) create", said))


def test_the_documented_secret_has_what_the_chart_starts() -> None:
    """A collector without write keys ends at once: it would be started again and again."""
    told = (ROOT / "docs" / "operations" / "deploying.md").read_text()
    made = told[told.index("kubectl create secret generic headwater ") : told.index("headwater tokens create")]
    assert VALUES["roles"]["collector"]["replicas"] > 0
    assert set(re.findall(r"--from-literal=(\w+)", made)) == {"HEADWATER_SECRET", "HEADWATER_COLLECTOR__WRITE_KEYS"}


def test_every_role_is_scraped() -> None:
    prometheus = yaml.safe_load((DEPLOY / "monitoring" / "prometheus.yaml").read_text())
    [job] = prometheus["scrape_configs"]
    optional = [role for role in COMPOSE_ORDER if COMPOSE["services"][role].get("profiles")]
    always = [role for role in COMPOSE_ORDER if role not in optional]
    assert job["static_configs"][0]["targets"] == [f"{role}:9100" for role in always]
    # A static target that nobody runs would set off HeadwaterRoleDown for good.
    [found] = job["dns_sd_configs"]
    assert (found["names"], found["type"], found["port"]) == (optional, "A", 9100)
    assert set(COMPOSE_ORDER) == set(ROLES)


def test_probes_ask_for_paths_that_are_there() -> None:
    chart = (CHART / "templates" / "roles.yaml").read_text()
    probed = set(re.findall(r"path: (/[a-z]+)", chart))
    assert probed == {"/livez", "/readyz", "/metrics"}
    for role in ("api", "collector", "ui"):
        source = "".join(path.read_text() for path in (ROOT / "pipeline" / role).glob("*.py"))
        assert '"/livez"' in source and '"/readyz"' in source, role


def test_the_image_has_the_extras_of_its_roles() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text()
    built, installed = (set(names.split(",")) for names in re.findall(r"'(?:headwater|\.)\[([a-z,]+)\]'", DOCKERFILE))
    assert built == installed, "what the second stage installs is among the wheels of the first"
    for extra in installed:
        assert re.search(rf"^{extra} = \[", pyproject, re.MULTILINE), extra
    assert {"api", "archive", "avro", "cleaning", "collector", "postgres", "redis", "ui"} <= installed


def imported_by(paths: list[Path]) -> set[str]:
    """The names of all modules that these files of ours import, and the modules of ours among them, and so on."""
    found: set[str] = set()
    seen: set[Path] = set()
    while paths:
        path = paths.pop()
        if path in seen or not path.exists():
            continue
        seen.add(path)
        for node in ast.walk(ast.parse(path.read_text())):
            names = [one.name for one in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{name}" for name in names)]
            found.update(names)
            inner = [ROOT / name.replace(".", "/") for name in names if name.startswith(("pipeline", "connectors"))]
            paths += [file for one in inner for file in (one.with_suffix(".py"), one / "__init__.py")]
    return found


def test_the_image_compiles_with_the_types_of_what_the_compiled_rooms_import() -> None:
    hot = re.findall(r'^    "(pipeline/[a-z_/]+\.py)",$', (ROOT / "setup.py").read_text(), re.MULTILINE)
    imported = {name.partition(".")[0] for name in imported_by([ROOT / one for one in hot])}
    assert {"msgspec", "pipeline"} <= imported and len(hot) > 30
    stubs = re.findall(r'^    "types-([A-Za-z]+)', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    needed = [f"types-{one}" for one in stubs if one.lower().removeprefix("py") in imported]
    assert needed == ["types-PyYAML"]
    installed = re.search(r"^RUN pip install .*mypy.*$", DOCKERFILE, re.MULTILINE)
    assert installed and all(one in installed[0] for one in needed)


def helm() -> str:
    found = shutil.which("helm", path=f"{ROOT / 'build' / 'tools'}:{os.environ['PATH']}")
    if found is None:
        pytest.skip("helm is not there: make helm")
    return found


def rendered(*settings: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [
            helm(),
            "template",
            "hw",
            str(CHART),
            "--kube-version",
            "1.30.0",
            "--set",
            "kafka.bootstrapServers=k:9092",
            *settings,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


EVERYTHING = (
    "--set",
    "roles.unify.autoscaling.enabled=true",
    "--set",
    "serviceMonitor.enabled=true",
    "--set",
    "topics.destinations={crm}",
    "--set",
    "image.pullSecrets[0].name=registry",
    "--set",
    "kafka.properties.security\\.protocol=SASL_SSL",
)


@pytest.mark.parametrize("settings", [(), EVERYTHING])
@pytest.mark.parametrize("version", ["1.28.0", kubernetes_validate.latest_version()])
def test_the_chart_renders_to_valid_objects(settings: tuple[str, ...], version: str) -> None:
    objects = rendered(*settings)
    assert len(objects) > 10
    for each in objects:
        if each["kind"] != "ServiceMonitor":  # of the Prometheus operator, not of Kubernetes
            kubernetes_validate.validate(each, version, strict=True)


def test_a_door_listens_where_it_is_asked() -> None:
    doors = {"api": 9000, "collector": 9001, "ui": 9002}
    ports = [word for role, port in doors.items() for word in ("--set", f"roles.{role}.port={port}")]
    sets = {each["metadata"]["name"]: each for each in rendered(*ports) if each["kind"] == "StatefulSet"}
    for role, port in doors.items():
        [container] = sets[f"hw-{role}"]["spec"]["template"]["spec"]["containers"]
        environment = {one["name"]: one.get("value") for one in container["env"]}
        assert environment[f"HEADWATER_{role.upper()}__PORT"] == str(port)
        assert {"name": "http", "containerPort": port} in container["ports"]


def test_a_door_that_ends_takes_what_it_is_still_sent() -> None:
    sets = {each["metadata"]["name"]: each for each in rendered() if each["kind"] == "StatefulSet"}
    for role in ("api", "collector", "ui"):
        pod = sets[f"hw-{role}"]["spec"]["template"]["spec"]
        [container] = pod["containers"]
        program, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
        stops_within_s = int(seconds) + 2 * CollectorSettings().stop_timeout_seconds
        assert program == "sleep" and stops_within_s < pod["terminationGracePeriodSeconds"]


def test_what_is_rendered_is_what_a_role_needs() -> None:
    objects = rendered(*EVERYTHING)
    sets = {each["metadata"]["name"]: each for each in objects if each["kind"] == "StatefulSet"}
    assert set(sets) == {f"hw-{role}" for role in ROLES}
    for name, each in sets.items():
        pod = each["spec"]["template"]["spec"]
        [container] = pod["containers"]
        environment = {one["name"]: one for one in container["env"]}
        slot = environment["HEADWATER_SLOT"]["valueFrom"]["fieldRef"]["fieldPath"]
        assert "pod-index" in slot, name
        assert environment["HEADWATER_KAFKA__SECURITY_PROTOCOL"]["value"] == "SASL_SSL"
        assert pod["securityContext"]["runAsNonRoot"] and container["securityContext"]["readOnlyRootFilesystem"]
        assert container["livenessProbe"] and container["readinessProbe"], name
        assert not [one for one in container["env"] if "SECRET" in one["name"] and "value" in one]
        # A service called headwater-api would set HEADWATER_API_PORT, which is no setting of ours.
        assert pod["enableServiceLinks"] is False and pod["imagePullSecrets"] == [{"name": "registry"}], name
    assert sets["hw-identity"]["spec"]["replicas"] == 1
    [scaler] = [each for each in objects if each["kind"] == "HorizontalPodAutoscaler"]
    assert scaler["spec"]["maxReplicas"] <= VALUES["workspace"]["partitions"]
    assert "replicas" not in sets["hw-unify"]["spec"], "an upgrade would undo what the autoscaler did"
    [monitor] = [each for each in objects if each["kind"] == "ServiceMonitor"]
    alerts = (DEPLOY / "monitoring" / "alerts.yaml").read_text()
    services = [each["metadata"]["labels"] for each in objects if each["kind"] == "Service"]
    # The job is called as the alerts ask for it, whatever the release is called.
    for job in {labels[monitor["spec"]["jobLabel"]] for labels in services}:
        assert all(re.fullmatch(asked, job) for asked in re.findall(r'job=~"([^"]+)"', alerts))
    [relabeled] = monitor["spec"]["endpoints"][0]["relabelings"]
    assert relabeled["targetLabel"] == "workspace" and "by (workspace" in alerts
    budgets = {each["metadata"]["name"] for each in objects if each["kind"] == "PodDisruptionBudget"}
    assert budgets == {f"hw-{role}" for role, own in VALUES["roles"].items() if own["replicas"] > 1}
    [job] = [each for each in objects if each["kind"] == "Job"]
    made = job["spec"]["template"]["spec"]
    assert "--destination=crm" in made["containers"][0]["args"]
    assert made["enableServiceLinks"] is False and made["imagePullSecrets"] == [{"name": "registry"}]


def test_a_role_can_be_a_user_of_its_own_at_kafka() -> None:
    """`headwater topics acls` prints what each role may do: with one Secret, every pod has the rights of all."""
    objects = rendered("--set", "roles.unify.secretName=unify", "--set", "topics.secretName=operator")
    pods = {
        each["metadata"]["name"]: each["spec"]["template"]["spec"]["containers"][0]
        for each in objects
        if each["kind"] in ("StatefulSet", "Job")
    }
    own = {"hw-unify": "unify", "hw-topics": "operator"}
    for name, container in pods.items():
        said = [source["secretRef"]["name"] for source in container["envFrom"]]
        # The last one counts where two have the same key.
        assert said == ["headwater", *([own[name]] if name in own else [])], name


ODD = """
image: {tag: 20261128}
kafka:
  properties: {message.max.bytes: 10485760, socket.timeout.ms: 60000, enable.ssl.certificate.verification: false}
roles:
  unify: {autoscaling: {enabled: true, lagRecords: 5000000}}
  ui: {replicas: 0}
"""


def test_numbers_and_lists_are_as_they_were_written(tmp_path: Path) -> None:
    """Helm takes numbers of a file for floats: `1.048576e+07` was what every role was given, and refused."""
    (tmp_path / "odd.yaml").write_text(ODD)
    objects = rendered("-f", str(tmp_path / "odd.yaml"), "--set", "kafka.bootstrapServers={k1:9092,k2:9092}")
    pods = [each["spec"]["template"]["spec"] for each in objects if each["kind"] in ("StatefulSet", "Job")]
    for [container] in (pod["containers"] for pod in pods):
        assert container["image"] == "headwater:20261128"
        environment = {one["name"]: one.get("value") for one in container["env"]}
        assert environment["HEADWATER_BOOTSTRAP_SERVERS"] == "k1:9092,k2:9092"
        kafka = {name: value for name, value in environment.items() if name.startswith("HEADWATER_KAFKA__")}
        assert kafka == {
            "HEADWATER_KAFKA__MESSAGE_MAX_BYTES": "10485760",
            "HEADWATER_KAFKA__SOCKET_TIMEOUT_MS": "60000",
            "HEADWATER_KAFKA__ENABLE_SSL_CERTIFICATE_VERIFICATION": "false",
        }
    [scaler] = [each for each in objects if each["kind"] == "HorizontalPodAutoscaler"]
    assert scaler["spec"]["metrics"][0]["pods"]["target"]["averageValue"] == "5000000"


@pytest.mark.parametrize(
    "value",
    [
        "--set=kafka.properties.security.protocol=SASL_SSL",  # no \\ before the dot: two maps
        "--set=kafka.bootstrapServer=k:9092",
        "--set=roles.unify.replica=5",
        "--set=roles.unfy.replicas=5",
        "--set=roles.ingest.autoscaling.enabled=true",  # without bounds of its own: at most 0 workers
        "--set=roles.privacy.replicas=2",
        "--set=roles.ui.replicas=2",
        "--set-string=roles.unify.autoscaling.enabled=false",
        "--set-string=topics.create=false",
        "--set-string=workspace.partitions=twelve",
        "--set=topics.destinations=crm",
        "--set=secretName=",
    ],
)
def test_what_would_be_passed_over_is_refused(value: str) -> None:
    words = [helm(), "template", "hw", str(CHART), "--kube-version", "1.30.0", "--set", "kafka.bootstrapServers=k:9092"]
    done = subprocess.run([*words, value], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "don't meet the specifications of the schema" in done.stderr, done.stdout[:500]


def test_without_an_address_it_says_so() -> None:
    done = subprocess.run(
        [helm(), "template", "hw", str(CHART), "--kube-version", "1.30.0"], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0 and "kafka.bootstrapServers is required" in done.stderr
