"""Values as they stand in topics, from and to those of the rooms: the one place where a workspace's format matters."""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pipeline.errors import InputError

if TYPE_CHECKING:
    from pipeline.settings import Settings
    from pipeline.wire.datums import Datums
    from pipeline.wire.registry import Schemas

_log = logging.getLogger(__name__)


class _Read(Protocol):
    @property
    def topic(self) -> str: ...

    @property
    def value(self) -> bytes | None: ...

    def _replace(self, *, value: bytes) -> Any: ...


_Record = TypeVar("_Record", bound=_Read)


class Values:
    """The format of one workspace's values. May be used from several threads."""

    def __init__(
        self,
        topic_name: Callable[[str], str] = str,
        registry: Mapping[str, Any] | None = None,
        *,
        writes_avro: bool = False,
        registers: bool = True,
    ) -> None:
        """`topic_name` gives the real name of a logical topic, `registry` are the properties of the registry's client.
        `registers`: whether schemas are registered where they are not yet."""
        self.writes_avro = writes_avro
        self._topic_name = topic_name
        self._properties = registry or {}
        self._registers = registers
        self._schemas: Schemas | None = None
        self._datums: dict[str, Datums | None] = {}
        self._writers: dict[str, Callable[[bytes], bytes] | None] = {}

    def written(self, topic: str, value: bytes | None) -> bytes | None:
        """A value as it is to stand in a topic, given by its logical name.

        Raises:
            InputError: it is no record of the topic.
            RegistryError: the registry does not answer, or refuses the topic's schema.
        """
        if value is None or not self.writes_avro:
            return value
        try:
            write = self._writers[topic]
        except KeyError:
            write = self._writers[topic] = self._writer(topic)
        return value if write is None else write(value)

    def opened(self, records: Sequence[_Record]) -> list[_Record]:
        """Records that were read, with logical names, and their values as the rooms know them.

        A value that is not what its schema says is given as it is: whoever reads it refuses it.

        Raises:
            SettingsError: there is Avro among them, and no registry is set.
            RegistryError: the registry does not answer, or does not know a schema.
        """
        return [record._replace(value=self._read(record)) if _is_avro(record.value) else record for record in records]

    def opened_value(self, topic: str, value: bytes) -> bytes:
        """The same of one value."""
        return self._opened(topic, value) if _is_avro(value) else value

    def register(self, topics: Iterable[str]) -> list[str]:
        """Register what is written to these topics. Gives the subjects. Does nothing where the format is JSON.

        Raises:
            RegistryError: the registry does not answer, or refuses.
        """
        found = []
        for topic in topics if self.writes_avro else ():
            datums = self._of(topic)
            if datums is not None:
                self._known_schemas().register(self._subject(topic), _text(datums))
                found.append(self._subject(topic))
        return found

    def prepare(self, topics: Iterable[str]) -> None:
        """Have at hand what is needed to write to these topics, before anything waits for it. Raises as `written`."""
        for topic in topics if self.writes_avro else ():
            if topic not in self._writers:
                self._writers[topic] = self._writer(topic)

    def _subject(self, topic: str) -> str:
        return f"{self._topic_name(topic)}-value"

    def _known_schemas(self) -> "Schemas":
        if self._schemas is None:
            from pipeline.wire.registry import Schemas

            self._schemas = Schemas(self._properties)
        return self._schemas

    def _of(self, topic: str) -> "Datums | None":
        if topic not in self._datums:
            from pipeline.wire.datums import Datums, records_of

            self._datums[topic] = Datums(topic) if records_of(topic) else None
        return self._datums[topic]

    def _writer(self, topic: str) -> Callable[[bytes], bytes] | None:
        datums = self._of(topic)
        if datums is None:
            return None
        schemas, subject = self._known_schemas(), self._subject(topic)
        known = (schemas.register if self._registers else schemas.find)(subject, _text(datums))
        head, datum = b"\x00" + known.to_bytes(4, "big"), datums.datum

        def write(value: bytes) -> bytes:
            try:
                return head + datum(value)
            except ValueError as wrong:
                raise InputError(
                    f"A value cannot be written in Avro: {wrong}.",
                    subject.removesuffix("-value"),
                    "what goes to this topic must be one of its records: see schemas/",
                ) from None

        return write

    def _read(self, record: _Read) -> bytes:
        assert record.value is not None
        return self._opened(record.topic, record.value)

    def _opened(self, topic: str, value: bytes) -> bytes:
        datums = self._of(topic)
        if datums is None or len(value) < 5:
            return value
        from pipeline.wire.registry import HEAD_BYTES, RegistryError

        number = int.from_bytes(value[1:HEAD_BYTES], "big")
        schema = self._known_schemas().written_with(number)
        if schema is None:
            raise RegistryError(
                f"The schema registry has no Avro schema {number}, with which a record was written.",
                self._topic_name(topic),
                "see that `url` under `schema_registry:` is that of the workspace, and that nothing was deleted there",
            )
        try:
            return datums.value(schema.read(value, HEAD_BYTES))
        except (ValueError, TypeError) as wrong:
            _log.warning("a record of %s is not what its schema %d says: %s", self._topic_name(topic), number, wrong)
            return value


def _is_avro(value: bytes | None) -> bool:
    return bool(value) and value[0] == 0  # type: ignore[index]


def _text(datums: "Datums") -> str:
    from pipeline.wire.datums import text_of

    return text_of(datums.schema)


JSON = Values()
"""The format where nothing is said."""

_by_workspace: dict[Any, Values] = {}
_lock = threading.Lock()


def values_of(settings: "Settings") -> Values:
    """The format of a workspace's values: one object for all clients of a process, so that each schema is asked for
    once."""
    key = (
        settings.prefix,
        settings.format,
        settings.register_schemas,
        tuple(sorted((name, str(value)) for name, value in settings.schema_registry.items())),
    )
    with _lock:
        found = _by_workspace.get(key)
        if found is None:
            found = _by_workspace[key] = Values(
                settings.topic,
                settings.schema_registry,
                writes_avro=settings.format == "avro",
                registers=settings.register_schemas,
            )
    return found
