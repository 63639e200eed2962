"""Settings: which source wins, and what a wrong one is told."""

import errno
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import SecretStr

from pipeline.admin import refuse_other_partitions
from pipeline.errors import BrokerError, SettingsError
from pipeline.secret_check import check_of, refuse_another_secret
from pipeline.settings import DEFAULT_FILE, ENV_PREFIX, Settings, load


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without a settings file, an environment without settings."""
    for name in list(os.environ):
        if name.startswith(ENV_PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _write(text: str) -> None:
    Path("headwater.yaml").write_text(text)


def test_defaults_are_for_one_machine() -> None:
    settings = load()
    assert (settings.bootstrap_servers, settings.partitions, settings.prefix) == (None, 4, "headwater.")
    assert settings.topic("events") == "headwater.events"
    assert settings.topic("/shop.orders") == "shop.orders"


def test_options_stand_above_the_environment_above_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    _write("partitions: 2\nprefix: file.\nslot: file\n")
    monkeypatch.setenv("HEADWATER_PREFIX", "env.")
    monkeypatch.setenv("HEADWATER_SLOT", "env")
    settings = load(slot="option", metrics_port=None)
    assert (settings.partitions, settings.prefix, settings.slot) == (2, "env.", "option")


def test_the_file_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("partitions: 7")
    monkeypatch.setenv("HEADWATER_CONFIG", str(other))
    assert load().partitions == 7
    monkeypatch.setenv("HEADWATER_CONFIG", str(tmp_path / "none.yaml"))
    with pytest.raises(SettingsError, match="does not exist"):
        load()


def test_each_librdkafka_property_counts_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    _write("kafka:\n  security.protocol: SSL\n  socket.timeout.ms: 5000\n")
    monkeypatch.setenv("HEADWATER_KAFKA__SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("HEADWATER_BOOTSTRAP_SERVERS", "kafka:9092")
    properties = load().client_properties()
    assert properties["security.protocol"] == "SASL_SSL"
    assert properties["socket.timeout.ms"] == 5000
    assert properties["bootstrap.servers"] == "kafka:9092"


def test_lists_are_written_as_people_write_them(monkeypatch: pytest.MonkeyPatch) -> None:
    _write("sources: [raw, /shop.orders]\nbootstrap_servers: [a:9092, b:9092]\n")
    assert load().sources == ("raw", "/shop.orders")
    assert load().bootstrap_servers == "a:9092,b:9092"
    monkeypatch.setenv("HEADWATER_SOURCES", "raw, web")
    assert load().sources == ("raw", "web")
    monkeypatch.setenv("HEADWATER_SOURCES", '["raw", "/web", "raw"]')
    assert load().sources == ("raw", "/web")


@pytest.mark.parametrize(
    "source", ["events", "dead-letters", "/w.dead-letters", "deliveries.crm", "/w.deliveries.crm", "/"]
)
def test_what_ingest_writes_is_no_source_of_it(source: str) -> None:
    _write(f"prefix: w.\nsources: [raw, {source}]")
    with pytest.raises(SettingsError, match=r"written by Headwater itself|a source has a name") as refused:
        load()
    assert "`sources" in str(refused.value)
    _write("prefix: other.\nsources: [/w.raw, /w.web, /events]")
    assert load().sources == ("/w.raw", "/w.web", "/events")


@pytest.mark.parametrize(
    ("file", "environment", "what", "where", "what_to_do"),
    [
        ("partitions: many", {}, "`partitions` cannot be used", "`partitions` in headwater.yaml", "Fixed at creation"),
        ("", {"PARTITIONS": "0"}, "greater than or equal to 1", "variable HEADWATER_PARTITIONS", "Fixed"),
        ("partitons: 4", {}, "There is no setting `partitons`", "headwater.yaml", "did you mean partitions?"),
        ("", {"API__PROT": "1"}, "There is no setting `api.prot`", "HEADWATER_API__", "did you mean api.port?"),
        ("ui: {hosts: a}", {}, "There is no setting `ui.hosts`", "headwater.yaml", "did you mean ui.host?"),
        ("", {"PARTITONS": "4"}, "means nothing", "HEADWATER_PARTITONS", "did you mean HEADWATER_PARTITIONS?"),
        ("- a list", {}, "not a mapping", "headwater.yaml", "partitions: 4"),
        ("a: [", {}, "not valid YAML", "headwater.yaml:1", "correct it"),
        ("a: 1\nb: c: d\n", {}, "not valid YAML", "headwater.yaml:2", "correct it"),
        ("partitions: 4\nprefix: a.\npartitions: 6\n", {}, "a key stands twice", "headwater.yaml:3", "correct it"),
        ("kafka: {acks: all, acks: 1}", {}, "a key stands twice", "headwater.yaml:1", "correct it"),
        ("a: 2026-99-99", {}, "not valid YAML", "headwater.yaml", "correct it"),
        ("a: !!bool x", {}, "not valid YAML", "headwater.yaml", "correct it"),
        ("a: !!timestamp x", {}, "not valid YAML", "headwater.yaml", "correct it"),
        ("a: " + "1" * 5_000, {}, "not valid YAML", "headwater.yaml", "correct it"),
        ("[" * 50_000, {}, "not valid YAML", "headwater.yaml", "correct it"),
        ("kafka: {group.id: mine}", {}, "`group.id` is set by the engine", "kafka", "librdkafka"),
        ("kafka: {auto.offset.reset: latest}", {}, "`auto.offset.reset` is set by the engine", "kafka", ""),
        ("prefix: 'a b'", {}, "`prefix` cannot be used", "headwater.yaml", ""),
        ("sources: []", {}, "`sources` cannot be used", "headwater.yaml", ""),
    ],
)
def test_a_wrong_setting_is_told(
    file: str, environment: dict[str, str], what: str, where: str, what_to_do: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if file:
        _write(file)
    for name, value in environment.items():
        monkeypatch.setenv(ENV_PREFIX + name, value)
    with pytest.raises(SettingsError) as caught:
        load()
    assert what in caught.value.what
    assert where in caught.value.where
    assert what_to_do in caught.value.what_to_do
    assert caught.value.exit_code == 2


def test_no_secret_is_shown() -> None:
    _write("secret: hunter2\nkafka: {sasl.password: hunter2}\n")
    assert "hunter2" not in repr(load().secret)
    # The last three are no YAML: what the parser says of them has the line in it.
    for text in (
        "secret: [hunter2]\nkafka: {sasl.password: hunter2, group.id: x}\n",
        "secret: 'hunter2\n",
        "secret: *hunter2\n",
        "secret: !hunter2 a\n",
    ):
        _write(text)
        with pytest.raises(SettingsError) as caught:
            load()
        assert "hunter2" not in str(caught.value)


def test_a_settings_file_that_cannot_be_read_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    _write("partitions: 4\n")

    def denied(*_: object, **__: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")

    for name in ("read_text", "stat"):
        with monkeypatch.context() as patch, pytest.raises(SettingsError, match="Permission denied") as caught:
            patch.setattr(Path, name, denied)
            load(Path(DEFAULT_FILE))
        assert caught.value.where == DEFAULT_FILE and caught.value.what_to_do


def test_a_kept_secret_that_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="no text") as caught:
        load(state_dir=tmp_path).secret_bytes()
    assert caught.value.where == str(tmp_path / "secret")


def test_the_secret_is_made_once_and_kept_to_oneself(empty_folder: Path) -> None:
    settings = Settings(state_dir=empty_folder / "state")
    with ThreadPoolExecutor(8) as pool:
        found = {each.result() for each in [pool.submit(settings.secret_bytes) for _ in range(32)]}
    assert len(found) == 1
    file = empty_folder / "state" / "secret"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["secret"]
    assert Settings(state_dir=empty_folder / "state", bootstrap_servers="127.0.0.1:9092").secret_bytes() in found


@pytest.mark.parametrize("servers", ["kafka:9092", "127.0.0.1:9092,10.0.0.7:9092"])
def test_a_workspace_of_several_machines_must_be_given_its_secret(servers: str, empty_folder: Path) -> None:
    settings = Settings(bootstrap_servers=servers, state_dir=empty_folder)
    with pytest.raises(SettingsError, match="has no secret") as caught:
        settings.secret_bytes()
    assert "HEADWATER_SECRET" in caught.value.what_to_do
    assert Settings(bootstrap_servers=servers, secret="s").secret_bytes() == b"s"


def test_an_empty_secret_is_refused(empty_folder: Path) -> None:
    (empty_folder / "secret").write_text("\n")
    with pytest.raises(SettingsError, match="empty"):
        Settings(state_dir=empty_folder).secret_bytes()
    with pytest.raises(SettingsError, match="empty"):
        Settings(secret="").secret_bytes()
    with pytest.raises(SettingsError, match="no text in UTF-8"):
        Settings(secret=b"\xfc".decode(errors="surrogateescape")).secret_bytes()  # what os.environ has of such bytes


@pytest.mark.parametrize(("group", "kept"), [("api", "host"), ("collector", "host"), ("ui", "host"), ("ui", "api")])
def test_each_member_of_a_group_counts_by_itself(group: str, kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container sets the address in its environment; what the file says beside it still counts."""
    _write(f"{group}: {{{kept}: http://example.org, port: 1}}")
    monkeypatch.setenv(f"HEADWATER_{group.upper()}__PORT", "7777")
    found = getattr(load(), group)
    assert (found.port, getattr(found, kept)) == (7777, "http://example.org")


def test_another_number_of_partitions_than_that_of_the_workspace_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    topics = {"w.events": 12, "events": 4}
    monkeypatch.setattr("pipeline.admin.admin_client", lambda _: None)
    monkeypatch.setattr("pipeline.admin._metadata", lambda *_: (1, topics))
    refuse_other_partitions(Settings(bootstrap_servers="k:9092", prefix="w.", partitions=12))
    for wrong in (4, 13):
        with pytest.raises(SettingsError, match=rf"made with 12 partitions, and {wrong} are set") as told:
            refuse_other_partitions(Settings(bootstrap_servers="k:9092", prefix="w.", partitions=wrong))
        assert "HEADWATER_PARTITIONS=12" in told.value.what_to_do
    topics.clear()  # nobody has made them, or whoever asks may not see them
    refuse_other_partitions(Settings(bootstrap_servers="k:9092", prefix="w.", partitions=4))

    def away(*_: object) -> None:
        raise BrokerError("The Kafka does not answer.", "k:9092", "")

    monkeypatch.setattr("pipeline.admin._metadata", away)
    refuse_other_partitions(Settings(bootstrap_servers="k:9092", prefix="w.", partitions=4))


@pytest.mark.parametrize(
    ("variable", "value"), [("DEFINITIONS", "x.yaml"), ("COLLECTOR__WRITE_KEYS", "web"), ("KAFKA", "x")]
)
def test_a_variable_that_is_no_json_is_named(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV_PREFIX + variable, value)
    with pytest.raises(SettingsError, match="environment variable cannot be read") as told:
        load()
    assert told.value.where == ENV_PREFIX + variable and "JSON" in told.value.what_to_do


@pytest.mark.parametrize(
    "variable", ["SOURCES", "DEFINITIONS", "KAFKA", "API", "COLLECTOR__WRITE_KEYS", "COLLECTOR__ALLOWED_ORIGINS"]
)
def test_a_variable_that_is_nested_without_end_is_named(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV_PREFIX + variable, "[" * 100_000)
    monkeypatch.setenv(f"{ENV_PREFIX}SECRET", "[")
    with pytest.raises(SettingsError) as told:
        load()
    assert ENV_PREFIX + variable in str(told.value.where) and "SECRET" not in str(told.value.where)
    assert len(str(told.value)) < 1_000


@pytest.mark.parametrize("host", ["é..", "a..b", "x" * 64, "", " ", "\udcff"], ids=range(6))
@pytest.mark.parametrize("variable", ["METRICS_HOST", "API__HOST", "UI__HOST", "COLLECTOR__HOST"])
def test_what_no_host_is_called_is_told(variable: str, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket raises something of its own, and nothing at all where it is empty: that means every address."""
    monkeypatch.setenv(ENV_PREFIX + variable, host)
    with pytest.raises(SettingsError, match="cannot be used"):
        load()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("STATE_DIR", "~nobody-here/x"),
        ("CACHE_DIR", "~nobody-here/x"),
        ("DEFINITIONS", '["~nobody-here/x"]'),
        ("API__TOKENS", "~nobody-here/x"),
        ("UI__USERS", "~nobody-here/x"),
        ("BOOTSTRAP_SERVERS", "\udcff:9092"),
        ("KAFKA__SASL_PASSWORD", "\udcff"),
    ],
)
def test_a_home_that_nobody_has_and_what_is_no_text_are_told(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENV_PREFIX + variable, value)
    with pytest.raises(SettingsError, match="cannot be used") as told:
        load()
    assert ENV_PREFIX + variable.partition("__")[0] in str(told.value.where)


def test_a_user_without_a_home_has_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one whose number a cluster has chosen: every command was a traceback."""

    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    assert load().cache_dir == Path(".headwater/cache")


def test_a_write_key_that_is_wrong_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{ENV_PREFIX}COLLECTOR__WRITE_KEYS", '{"f00dcafe1234": "No Name"}')
    with pytest.raises(SettingsError, match=r"`collector\.write_keys` cannot be used: a source's name") as told:
        load()
    assert "f00dcafe" not in str(told.value)


@pytest.mark.parametrize("text", [None, "kafka: {security: {protocol: SASL_SSL}}\n"])
def test_a_property_in_pieces_is_told_how_it_is_written(
    text: str | None, empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if text is None:
        monkeypatch.setenv(f"{ENV_PREFIX}KAFKA__SECURITY__PROTOCOL", "SASL_SSL")
    else:
        (empty_folder / DEFAULT_FILE).write_text(text)
    with pytest.raises(SettingsError, match=r"`kafka\.security` is no property") as told:
        load()
    assert "KAFKA__SECURITY_PROTOCOL" in told.value.what_to_do


@pytest.mark.parametrize("address", ["http://é..", "http://a..b", "http://[::1", "http://x:99999", "http://", "x:80"])
def test_what_no_api_is_called_is_told(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{ENV_PREFIX}UI__API", address)
    with pytest.raises(SettingsError, match="cannot be used"):
        load()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::", "localhost", "bücher.example", "fe80::1%eth0"])
def test_what_a_host_may_be_called_is_taken(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{ENV_PREFIX}API__HOST", host)
    assert load().api.host == host


def test_another_secret_than_that_of_the_workspace_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[bytes | None] = [b'{"kind":"secret_check","check":"%s"}' % check_of(b"right").encode()]
    monkeypatch.setattr("pipeline.secret_check.current_value", lambda *_: kept[0])
    right, wrong = (Settings(bootstrap_servers="k:9092", secret=SecretStr(one)) for one in ("right", "wrong"))
    refuse_another_secret(right)
    with pytest.raises(SettingsError, match="made with another secret") as told:
        refuse_another_secret(wrong)
    assert "right" not in str(told.value) and check_of(b"right") not in str(told.value)
    kept[0] = None
    refuse_another_secret(wrong)

    def away(*_: object) -> None:
        raise BrokerError("The Kafka does not answer.", "k:9092", "")

    monkeypatch.setattr("pipeline.secret_check.current_value", away)
    refuse_another_secret(wrong)
