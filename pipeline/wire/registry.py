"""Schemas of a registry, by id and by subject, for records in Confluent's wire format.

byte 0        0: so written (JSON begins with a brace, a sealed event with 1)
1 to 4        the id of the schema it was written with, big-endian
5 on          the datum
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pipeline.errors import BrokerError, SettingsError
from pipeline.runtime.errors import WorkerStopped
from pipeline.wire.datums import WriterSchema

HEAD_BYTES = 5
FIRST = 0

_log = logging.getLogger(__name__)
_GIVE_UP_S = 30.0
_PAUSE_S = 0.5
_MOST_KNOWN = 1_000
_ASK_AGAIN_S = 5.0
# Without one the client waits for an answer for ever; what it does not get is asked for again here.
_CLIENT = {"timeout": 5.0, "max.retries": 0}
_BUSY = frozenset({408, 429})
_Answer = TypeVar("_Answer")
_Kept = TypeVar("_Kept")


class RegistryError(WorkerStopped, BrokerError):
    """The schema registry does not answer, or refuses. A worker ends with it, as where Kafka refuses."""


class Schemas:
    """What a registry knows. A schema never changes, so each is asked for once, as long as not too many are. That there
    is none of an id does change: anybody's record may name the next one before it is registered, and a registry may
    hear of it late."""

    def __init__(
        self,
        properties: Mapping[str, Any],
        client: Any = None,
        give_up_s: float = _GIVE_UP_S,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`properties` are those of Confluent's client; `give_up_s`: how long a registry that is away is waited for."""
        self._clock_s = clock_s
        self._properties = dict(properties)
        self._client = client
        self._give_up_s = give_up_s
        self._known: OrderedDict[int, WriterSchema | None] = OrderedDict()
        self._missing: OrderedDict[int, float] = OrderedDict()

    def __call__(self, schema_id: int) -> Any:
        """The parsed schema, or None if the registry says that it has none of this id.

        Raises:
            SettingsError: no registry is set.
            RegistryError: it does not answer, or refuses; what was read is read again after a new start.
        """
        found = self.written_with(schema_id)
        return None if found is None else found.parsed

    def written_with(self, schema_id: int) -> WriterSchema | None:
        """The same, ready to read what was written with it."""
        if schema_id in self._known:
            return self._known[schema_id]
        if self._clock_s() - self._missing.get(schema_id, -_ASK_AGAIN_S) < _ASK_AGAIN_S:
            return None
        text = self._ask(f"the schema {schema_id}", lambda client: client.get_schema(schema_id).schema_str)
        if text is None:
            _keep(self._missing, schema_id, self._clock_s())
            return None
        try:
            found = WriterSchema(text)
        except ValueError:
            found = None  # of another kind: Protobuf, JSON Schema
        _keep(self._known, schema_id, found)
        return found

    def register(self, subject: str, text: str) -> int:
        """The id of a schema under a subject; the registry checks whether it goes with the former ones, and keeps it.

        Raises:
            RegistryError: it does not go with the former ones; or as above.
        """
        from confluent_kafka.schema_registry import Schema

        schema = Schema(text, "AVRO")
        found = self._ask(f"the subject {subject}", lambda client: client.register_schema(subject, schema))
        if found is None:
            raise RegistryError("The schema registry takes no schemas: 404.", subject, "see `url` of `schema_registry`")
        return int(found)

    def find(self, subject: str, text: str) -> int:
        """The id of a schema that was registered before.

        Raises:
            RegistryError: it was not; or as above.
        """
        from confluent_kafka.schema_registry import Schema

        schema = Schema(text, "AVRO")
        found = self._ask(f"the subject {subject}", lambda client: client.lookup_schema(subject, schema).schema_id)
        if found is None:
            raise RegistryError(
                "The schema registry does not know the schema of this release.",
                subject,
                "register the schemas: `headwater topics --create`, or let the roles do it: `register_schemas: true`",
            )
        return int(found)

    def _ask(self, what: str, call: Callable[[Any], _Answer]) -> _Answer | None:
        """The answer; None if there is no such thing."""
        from confluent_kafka.schema_registry.error import SchemaRegistryError

        give_up = time.monotonic() + self._give_up_s
        while True:
            try:
                return call(self._connected())
            except SchemaRegistryError as error:
                status = int(error.http_status_code or 0)
                if status == 404:
                    return None
                if 400 <= status < 500 and status not in _BUSY:
                    raise _refusal(what, status, str(error.error_message)) from None
                failure: Exception = error
            except OSError as error:
                failure = error
            except Exception as error:
                # The client's own transport has errors of its own, which are no OSError.
                if type(error).__module__.partition(".")[0] not in ("httpx", "httpx2", "httpcore", "requests"):
                    raise
                failure = error
            if time.monotonic() > give_up:
                raise RegistryError(
                    f"The schema registry does not answer: {failure}.",
                    what,
                    "see that it runs, and that `url` under `schema_registry:` is right; ask `headwater doctor`",
                ) from failure
            _log.warning("the schema registry does not answer yet: %s", failure)
            time.sleep(min(_PAUSE_S, self._give_up_s))

    def _connected(self) -> Any:
        if self._client is None:
            if not self._properties.get("url"):
                raise SettingsError(
                    "There are records in Avro, and no schema registry is set.",
                    "`schema_registry`",
                    "set HEADWATER_SCHEMA_REGISTRY__URL, or `schema_registry: {url: …}` in headwater.yaml",
                )
            try:
                from confluent_kafka.schema_registry import SchemaRegistryClient
            except ModuleNotFoundError as missing:
                raise SettingsError(
                    f"Avro with a schema registry needs a package that is not installed: {missing.name}.",
                    "",
                    "pip install 'headwater[avro]'",
                ) from None
            try:
                self._client = SchemaRegistryClient.new_client({**_CLIENT, **self._properties})
            except (ValueError, TypeError) as wrong:
                raise SettingsError(
                    f"The schema registry's client cannot be made: {wrong}.",
                    "`schema_registry`",
                    "its properties are those of Confluent's client: url, basic.auth.user.info, ssl.ca.location, …",
                ) from None
        return self._client


def _keep(known: "OrderedDict[int, _Kept]", schema_id: int, found: _Kept) -> None:
    # Ids may come from anybody's records: what is kept of them is bounded.
    known.pop(schema_id, None)
    if len(known) >= _MOST_KNOWN:
        known.popitem(last=False)
    known[schema_id] = found


def _refusal(what: str, status: int, said: str) -> RegistryError:
    if status == 409:
        return RegistryError(
            f"The schema registry refuses a schema, because it does not go with the former ones: {said}.",
            what,
            "a release whose records do not fit needs a replay into a new workspace; or the subject's compatibility "
            "is stricter than BACKWARD",
        )
    if status in (401, 403):
        return RegistryError(
            f"The schema registry refuses us: {status} {said}.",
            what,
            "see `basic.auth.user.info` under `schema_registry:`, or the rights of that user",
        )
    return RegistryError(f"The schema registry refuses: {status} {said}.", what, "see what it says")
