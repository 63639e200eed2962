"""Schemas of a registry, by id, for records in Confluent's wire format."""

import logging
import time
from collections.abc import Mapping
from typing import Any

import fastavro

from pipeline.errors import SettingsError
from pipeline.runtime.errors import WorkerStopped

_log = logging.getLogger(__name__)
_GIVE_UP_S = 30.0
_PAUSE_S = 0.5


class Schemas:
    """Parsed schemas by id. A schema never changes, so each is asked for once."""

    def __init__(self, properties: Mapping[str, Any], client: Any = None) -> None:
        self._properties = dict(properties)
        self._client = client
        self._known: dict[int, Any] = {}

    def __call__(self, schema_id: int) -> Any:
        """The schema, or None if the registry says that it has none of this id.

        Raises:
            SettingsError: no registry is set.
            WorkerStopped: it does not answer; what was read is read again after a new start.
        """
        if schema_id not in self._known:
            self._known[schema_id] = self._ask(schema_id)
        return self._known[schema_id]

    def _ask(self, schema_id: int) -> Any:
        from confluent_kafka.schema_registry.error import SchemaRegistryError

        give_up = time.monotonic() + _GIVE_UP_S
        while True:
            try:
                found = self._connected().get_schema(schema_id)
                return fastavro.parse_schema(_plain(found.schema_str))
            except SchemaRegistryError as error:
                if error.http_status_code == 404:
                    return None
                failure: Exception = error
            except OSError as error:
                failure = error
            except Exception as error:
                # The client's own transport has errors of its own, which are no OSError.
                if type(error).__module__.partition(".")[0] not in ("httpx", "httpcore", "requests"):
                    raise
                failure = error
            if time.monotonic() > give_up:
                raise WorkerStopped(f"the schema registry does not answer: {failure}") from failure
            _log.warning("the schema registry does not answer yet: %s", failure)
            time.sleep(_PAUSE_S)

    def _connected(self) -> Any:
        if self._client is None:
            if not self._properties.get("url"):
                raise SettingsError(
                    "A source needs a schema registry, and none is set.",
                    "`schema_registry`",
                    "set HEADWATER_SCHEMA_REGISTRY__URL, or `schema_registry: {url: …}` in headwater.yaml",
                )
            try:
                from confluent_kafka.schema_registry import SchemaRegistryClient
            except ModuleNotFoundError as missing:
                raise SettingsError(
                    f"Sources in Avro need a package that is not installed: {missing.name}.",
                    "",
                    "pip install 'headwater[avro]'",
                ) from None

            self._client = SchemaRegistryClient.new_client(self._properties)
        return self._client


def _plain(text: str) -> Any:
    import json

    return json.loads(text)
