"""The settings of one workspace on one machine: from `HEADWATER_*`, then `headwater.yaml`, then the defaults.

`load()` reads them; everything else receives a `Settings` as an argument.
"""

import difflib
import json
import os
import reprlib
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as EnvironmentSourceError

from pipeline.api.settings import ApiSettings
from pipeline.collector.settings import CollectorSettings
from pipeline.errors import SettingsError
from pipeline.private_files import is_there, read_yaml
from pipeline.setting_kinds import ExpandedPath, ListeningHost
from pipeline.topology import DELIVERIES, TOPICS
from pipeline.ui.settings import UiSettings

ENV_PREFIX = "HEADWATER_"
DEFAULT_FILE = "headwater.yaml"
SECRET_FILE = "secret"

KafkaProperty = str | int | float | bool


def default_cache_dir() -> Path:
    """Where jars and the like are kept: `$XDG_CACHE_HOME/headwater`, or `~/.cache/headwater`. A user without a home, as
    a container may be given one, has it in the folder where the state is by default."""
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base) / "headwater"
    try:
        return Path.home() / ".cache" / "headwater"
    except RuntimeError:
        return Path(".headwater") / "cache"


def _in_utf_8(value: Any) -> Any:
    """An environment may hold bytes that are no text: the client raises what nobody understands."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("it is no text in UTF-8") from None
    return value


class Settings(BaseSettings):
    """What one process must know of its workspace. A workspace is a prefix, with its own state and secret."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, validate_default=True
    )

    bootstrap_servers: str | None = Field(
        None, description="Addresses of the Kafka to use, host:port separated by commas. None: find or start one."
    )
    broker: Literal["auto", "docker", "local"] = Field(
        "auto", description="Where a Kafka comes from without bootstrap_servers: docker, local (Java 17), or either."
    )
    prefix: str = Field(
        "headwater.",
        pattern=r"^[a-zA-Z0-9._-]*$",
        max_length=100,
        description="Begins the name of every topic, group and id of the workspace.",
    )
    partitions: int = Field(
        4, ge=1, le=1000, description="Partitions of events, links and the topics that follow them. Fixed at creation."
    )
    output_partitions: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="Partitions of profiles, identities, segment-members, account-alerts and the two logs of changes. "
        "None: a quarter of `partitions`, at least one. Fixed at creation.",
    )
    replication_factor: int | None = Field(
        None, ge=1, le=10, description="Copies of each partition. None: three, or as many as there are brokers."
    )
    sources: Annotated[tuple[str, ...], NoDecode] = Field(
        ("raw",),
        min_length=1,
        description="Topics that ingest reads. A name without a slash has the prefix; /name is taken as it is.",
    )
    sources_prefix: str | None = Field(
        None,
        pattern=r"^[a-zA-Z0-9._-]*$",
        max_length=100,
        description="Prefix of `sources` without a slash, where it is another workspace's: in a replay that of the one "
        "from which it was made. None: `prefix`.",
    )
    secret: SecretStr | None = Field(
        None, description="Secret of the workspace's keys and profile ids. Changing it makes every person a new one."
    )
    state_dir: ExpandedPath = Field(Path(".headwater"), description="Folder of the local state.")
    cache_dir: ExpandedPath = Field(
        default_factory=default_cache_dir, description="Folder of what can be fetched again."
    )
    definitions: tuple[ExpandedPath, ...] = Field((), description="Files and folders of definitions that `up` applies.")
    seal_events: bool = Field(
        True, description="Seal each event in `events` under the key of its route, so that it can be forgotten."
    )
    forget_within_s: int = Field(
        600, ge=10, le=86_400, description="After so long an erasure is out of compacted topics and stores."
    )
    scrub_every_s: float = Field(
        30.0, gt=0, le=3600, description="How often a store rewrites files that hold values of people who were erased."
    )
    archive: str | None = Field(
        None, max_length=1_000, description="Where the archive is: a folder, or a URL (s3://bucket/prefix). None: none."
    )
    archive_every_s: float = Field(60.0, gt=0, le=3600, description="A record is in a file of the archive so soon.")
    archive_rows: int = Field(200_000, ge=1, le=10_000_000, description="Most records of a file of the archive.")
    compress_stores: bool = Field(True, description="Whether the files of stores and read models are compressed (LZ4).")
    slot: str = Field(
        "0",
        pattern=r"^[a-zA-Z0-9_-]+$",
        max_length=50,
        description="Name of this worker's place; a restart under the same slot goes on at once. Unique per role.",
    )
    transactional_ids: int = Field(
        1,
        ge=1,
        le=2,
        description="Ids of a worker's slot, among which its transactions take turns. With 2, one begins while the "
        "broker still ends the one before it.",
    )
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="Port of the metrics. None: none; 0: a free one."
    )
    metrics_host: ListeningHost = Field("127.0.0.1", description="Address the metrics are served on.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="How much a role logs.")
    api: ApiSettings = Field(default_factory=ApiSettings, description="The API: address, tokens, limits.")
    ui: UiSettings = Field(default_factory=UiSettings, description="The room for people: address, users, the API.")
    collector: CollectorSettings = Field(
        default_factory=CollectorSettings, description="The HTTP collector: write keys, address, limits."
    )
    format: Literal["json", "avro"] = Field(
        "json", description="How records stand in our topics: json, or avro with the schemas of `schema_registry`."
    )
    register_schemas: bool = Field(
        True, description="Whether roles register their schemas; else only `headwater topics --create` does."
    )
    schema_registry: dict[str, KafkaProperty] = Field(
        default_factory=dict, description="Properties of the schema registry's client: url, basic.auth.user.info, …"
    )
    kafka: dict[str, KafkaProperty] = Field(
        default_factory=dict, description="Any librdkafka property, for every client: security, timeouts, …"
    )

    @field_validator("sources", mode="before")
    @classmethod
    def _split_sources(cls, value: Any) -> Any:
        if isinstance(value, str) and value.strip().startswith("["):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                raise ValueError("write names with commas between, or a list as JSON") from None
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        # Named twice it would be made twice, and read once.
        return tuple(dict.fromkeys(value)) if isinstance(value, list) and all(type(x) is str for x in value) else value

    @field_validator("sources")
    @classmethod
    def _reads_nothing_of_its_own(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        own = {topic.name for topic in TOPICS if topic.name != "raw"}
        prefix = info.data.get("prefix", "")
        for source in value:
            name = source[1:].removeprefix(prefix) if source.startswith(f"/{prefix}") else source
            if not source.strip("/ "):
                raise ValueError("a source has a name")
            if name in own or name.startswith(DELIVERIES.name):
                what = "what ingest makes of it would come to it again, without end"
                raise ValueError(f"{source} is written by Headwater itself: {what}")
        return value

    @field_validator("archive", mode="before")
    @classmethod
    def _none_if_empty(cls, value: Any) -> Any:
        return value or None

    @field_validator("bootstrap_servers", mode="before")
    @classmethod
    def _join_servers(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            value = ",".join(map(str, value))
        return _in_utf_8(value) or None

    @field_validator("kafka")
    @classmethod
    def _keep_what_the_engine_sets(cls, value: dict[str, KafkaProperty]) -> dict[str, KafkaProperty]:
        for name, given in value.items():
            if name in _ENGINE_PROPERTIES:
                raise ValueError(f"`{name}` is set by the engine, which is only correct with its own value; remove it")
            _in_utf_8(given)
        return value

    def topic(self, name: str) -> str:
        """The real name of a topic: the prefix before a logical name; `/name` stands outside of the workspace."""
        if name.startswith("/"):
            return name[1:]
        return self.sources_elsewhere.get(name) or self.prefix + name

    @property
    def sources_elsewhere(self) -> dict[str, str]:
        """The real names of those sources that have a logical name and belong to another workspace."""
        if self.sources_prefix in (None, self.prefix):
            return {}
        return {name: f"{self.sources_prefix}{name}" for name in self.sources if not name.startswith("/")}

    def unread(self, topics: Iterable[str]) -> list[str]:
        """Those of the topics that are not among `sources`: ingest does not read them."""
        read = {self.topic(source) for source in self.sources}
        return sorted({topic for topic in topics if self.topic(topic) not in read})

    def client_properties(self) -> dict[str, KafkaProperty]:
        """What every Kafka client of the workspace starts from. SettingsError without an address."""
        if not self.bootstrap_servers:
            raise SettingsError(
                "There is no address of a Kafka.",
                "bootstrap_servers",
                f"set {ENV_PREFIX}BOOTSTRAP_SERVERS=host:9092 (or it in {DEFAULT_FILE}), or run `headwater up`",
            )
        # log_level 5: librdkafka's warnings and worse.
        own: dict[str, KafkaProperty] = {"client.id": "headwater", "log_level": 5}
        return {**own, **self.kafka, "bootstrap.servers": self.bootstrap_servers}

    def with_kafka(self, bootstrap_servers: str) -> "Settings":
        """The same settings at another Kafka."""
        return self.model_copy(update={"bootstrap_servers": bootstrap_servers})

    @property
    def runs_on_this_machine(self) -> bool:
        """Whether the Kafka is (or will be) one of this machine: no address, or only loopback ones."""
        if not self.bootstrap_servers:
            return True
        hosts = (address.strip().rpartition(":")[0].strip("[]") for address in self.bootstrap_servers.split(","))
        return all(host in ("localhost", "::1") or host.startswith("127.") for host in hosts)

    @property
    def has_no_secret_yet(self) -> bool:
        """Whether whoever asks for the secret would make it."""
        return self.secret is None and self.runs_on_this_machine and not os.path.exists(self.state_dir / SECRET_FILE)

    def secret_bytes(self) -> bytes:
        """The workspace's secret. On one machine it is made once and kept in the state folder; else it must be set.

        Every process of a workspace must have the same one: it decides keys, partitions and profile ids.
        """
        if self.secret is not None:
            try:
                value = self.secret.get_secret_value().encode()
            except UnicodeEncodeError:
                raise SettingsError("The workspace's secret is no text in UTF-8.", "secret", _SECRET_ADVICE) from None
            if not value:
                raise SettingsError("The workspace's secret is empty.", "secret", _SECRET_ADVICE)
            return value
        if not self.runs_on_this_machine:
            raise SettingsError(
                f"The workspace at {self.bootstrap_servers} has no secret.",
                "secret",
                _SECRET_ADVICE,
            )
        try:
            return _kept_secret(self.state_dir / SECRET_FILE)
        except UnicodeDecodeError:
            raise SettingsError(
                "The kept secret is no text.", str(self.state_dir / SECRET_FILE), "restore it from a backup"
            ) from None
        except OSError as error:
            raise SettingsError(
                f"The workspace's secret cannot be kept: {error.strerror}.",
                str(self.state_dir / SECRET_FILE),
                f"set {ENV_PREFIX}STATE_DIR to a folder that can be written, or {ENV_PREFIX}SECRET",
            ) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)  # `load` joins the sources, so that it can tell which one was wrong


_CALLED = "settings file"
_SHOWN = reprlib.Repr()
_SHOWN.maxstring = _SHOWN.maxother = 300
_AS_JSON = "write lists and mappings as JSON"
_SECRET_ADVICE = (
    "make one (openssl rand -hex 32) and give the same to every process: "
    f"{ENV_PREFIX}SECRET, or `secret` in {DEFAULT_FILE}"
)

# The commit order depends on these; ENGINE facts and tests stand behind each.
_ENGINE_PROPERTIES = frozenset(
    {
        "bootstrap.servers",
        "transactional.id",
        "enable.idempotence",
        "acks",
        "group.id",
        "group.instance.id",
        "group.protocol",
        "partition.assignment.strategy",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "isolation.level",
        "auto.offset.reset",
        "partitioner",
    }
)

# Groups of settings: each member counts by itself, wherever the others come from.
_GROUPS = ("kafka", "schema_registry", "api", "collector", "ui")

# librdkafka's few properties that have no dots; an environment variable writes _ for the dot of all others.
_PROPERTIES_WITH_UNDERSCORES = frozenset({"ssl_key", "ssl_certificate", "ssl_ca"})


def settings_file() -> Path:
    """Where the settings of this process stand, as far as they stand in a file."""
    return Path(os.environ.get("HEADWATER_CONFIG") or DEFAULT_FILE)


def load(file: Path | None = None, **overrides: Any) -> Settings:
    """Read the settings. `overrides` (options of a command) stand above the environment, which stands above the file.

    `file` None means `HEADWATER_CONFIG`, or `headwater.yaml` in the current folder if there is one. Of a group such as
    `kafka`, each member counts by itself. SettingsError tells the setting, where its value came from, and what would
    be right.
    """
    path = file or (Path(os.environ["HEADWATER_CONFIG"]) if os.environ.get("HEADWATER_CONFIG") else None)
    if path is not None and not is_there(path, _CALLED):
        raise SettingsError("The settings file does not exist.", str(path), "name another one, or leave it out")
    if path is None and is_there(Path(DEFAULT_FILE), _CALLED):
        path = Path(DEFAULT_FILE)
    _refuse_misspelt_variables()
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        environment = EnvSettingsSource(Settings)()
    except EnvironmentSourceError as error:
        raise SettingsError("An environment variable cannot be read.", _unreadable(str(error)), _AS_JSON) from None
    except RecursionError:
        where = ", ".join(name for name in sorted(os.environ) if name.upper().startswith(ENV_PREFIX) and _is_deep(name))
        raise SettingsError("An environment variable cannot be read: it is nested too deep.", where, _AS_JSON) from None
    for clients in ("kafka", "schema_registry"):
        if isinstance(environment.get(clients), dict):
            environment[clients] = {_property_name(name): value for name, value in environment[clients].items()}
    layers = [_read(path) if path else {}, environment, given]
    values = {name: value for layer in layers for name, value in layer.items()}
    for group in _GROUPS:
        said = [layer[group] for layer in layers if isinstance(layer.get(group), dict)]
        if said and isinstance(values[group], dict):
            values[group] = {name: value for layer in said for name, value in layer.items()}
    try:
        settings = Settings(**values)
    except ValidationError as error:
        raise _explained(error, given, environment, path) from None
    if settings.format == "avro" and not settings.schema_registry.get("url"):
        raise SettingsError(
            "The format avro needs a schema registry, and none is set.",
            "`schema_registry`",
            f"set {ENV_PREFIX}SCHEMA_REGISTRY__URL, or `schema_registry: {{url: …}}` in {path or DEFAULT_FILE}",
        )
    return settings


def _is_deep(variable: str) -> bool:
    try:
        json.loads(os.environ[variable])
    except RecursionError:
        return True
    except ValueError:
        pass
    return False


def _unreadable(said: str) -> str:
    """The variable, or those, of a setting of which pydantic says no more than its name."""
    setting = said.partition('field "')[2].partition('"')[0]
    name = f"{ENV_PREFIX}{setting.upper()}"
    there = [each for each in sorted(os.environ) if each.upper() == name or each.upper().startswith(f"{name}__")]
    return ", ".join(there) or said


def _property_name(name: str) -> str:
    return name if name in _PROPERTIES_WITH_UNDERSCORES else name.replace("_", ".")


def _read(path: Path) -> dict[str, Any]:
    values = read_yaml(path, _CALLED)
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise SettingsError(
            "The settings file is not a mapping of names to values.", str(path), "write lines such as `partitions: 4`"
        )
    return values


def _refuse_misspelt_variables() -> None:
    known = {name.upper() for name in Settings.model_fields} | {"CONFIG"}
    for variable in os.environ:
        name = variable.removeprefix(ENV_PREFIX).split("__")[0]
        if variable.startswith(ENV_PREFIX) and name not in known and difflib.get_close_matches(name, known, 1, 0.8):
            raise SettingsError(
                "This environment variable means nothing to Headwater.",
                variable,
                f"{_nearest(name, known, ENV_PREFIX)} Otherwise unset it.",
            )


def _nearest(name: str, known: set[str], prefix: str = "") -> str:
    near = difflib.get_close_matches(name, known, 1)
    if near:
        return f"did you mean {prefix}{near[0]}?"
    return "known are " + ", ".join(prefix + each for each in sorted(known))


def _explained(
    error: ValidationError, given: dict[str, Any], environment: dict[str, Any], path: Path | None
) -> SettingsError:
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    # Of a group two names say where it is: what stands below may be a write key.
    field = ".".join(map(str, first["loc"][:2] if name in _GROUPS else first["loc"]))
    if name in given:
        where = f"option --{name.replace('_', '-')}"
    elif name == "kafka":
        where = f"{ENV_PREFIX}KAFKA__…, or `kafka` in {path or DEFAULT_FILE}"
    elif name in _GROUPS and name in environment:
        where = f"{ENV_PREFIX}{name.upper()}__…, or `{field}` in {path or DEFAULT_FILE}"
    elif name in environment:
        where = f"environment variable {ENV_PREFIX}{name.upper()}"
    else:
        where = f"`{field}` in {path}"
    if first["type"] == "extra_forbidden":
        known = set(Settings.model_fields)
        group: Any = Settings.model_fields[name].annotation if name in known else None
        if group is not None:
            known, name = {f"{name}.{each}" for each in group.model_fields}, field
        return SettingsError(f"There is no setting `{name}`.", where, _nearest(name, known))
    if name == "kafka" and field != name and isinstance(first["input"], dict):
        what = f"`{field}` is no property of librdkafka, but the beginning of one."
        return SettingsError(what, where, f"write it whole: security.protocol, {ENV_PREFIX}KAFKA__SECURITY_PROTOCOL")
    description = Settings.model_fields[name].description if name in Settings.model_fields else ""
    shown = "" if name in ("secret", *_GROUPS) else f" (it is {_SHOWN.repr(first['input'])})"
    return SettingsError(
        f"The setting `{field}` cannot be used: {first['msg'].removeprefix('Value error, ')}{shown}.",
        where,
        f"{name}: {description}",
    )


def _kept_secret(path: Path) -> bytes:
    """The secret in `path`, made there once; two processes starting at the same moment end with the same one."""
    try:
        kept = path.read_text().strip()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(fresh, path)  # unlike a rename, it refuses to replace what another process wrote first
        except FileExistsError:
            pass  # the other process's secret is the secret
        finally:
            fresh.unlink()
        kept = path.read_text().strip()
    if not kept:
        raise SettingsError(
            "The kept secret is empty.", str(path), "restore it from a backup, or remove the state folder"
        )
    return kept.encode()
