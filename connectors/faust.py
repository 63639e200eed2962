"""Your own reactions to what Headwater tells, written as Faust agents. Needs `pip install 'headwater[faust]'`.

    from connectors.faust import App
    from pipeline.records import SegmentChange

    app = App("reactions", broker="kafka://localhost:9092")

    @app.on_segment_change("trial_started", changes=["entered"])
    async def greet(change: SegmentChange) -> None:
        print("welcome", change.profile_id)

    if __name__ == "__main__":
        app.main()                                  # python reactions.py worker -l info

Run as many workers as the topic has partitions; the changes of one profile come in order, to one of them. A reaction
may see a change again after a crash, with the same `sequence`. It is Faust as it is, but for one thing: it reads
committed records only. Faust does so only under its own exactly-once mode; in any other it would show you changes that
were rolled back.

Where the workspace's format is Avro, say its registry: `App(…, schema_registry={"url": "https://…"})`.

`app.changes(topic)` gives the typed topic itself, for agents, tables and windows of your own.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, TypeVar

import faust
import msgspec
from faust.serializers import codecs
from faust.transport.drivers import aiokafka as driver

from pipeline.records import Delivery, ProfileChange, ProfileDocument, SegmentChange, SegmentMember
from pipeline.wire import Values

RECORDS: dict[str, type[msgspec.Struct]] = {
    "segment-changes": SegmentChange,
    "profile-changes": ProfileChange,
    "profiles": ProfileDocument,
    "segment-members": SegmentMember,
}
"""The topics that are for everybody, and what stands in them. `deliveries.<destination>` holds `Delivery`."""

R = TypeVar("R")
Reaction = Callable[[R], Awaitable[None]]


class _Codec(codecs.Codec):
    """What stands in one of our topics to one of our structs; back to JSON."""

    def __init__(self, topic: str, kind: type[msgspec.Struct], values: Values) -> None:
        super().__init__()
        self._decode = msgspec.json.Decoder(kind).decode
        self._topic = topic
        self._values = values

    def _loads(self, s: bytes) -> Any:
        return self._decode(self._values.opened_value(self._topic, s))

    def _dumps(self, s: Any) -> bytes:
        return msgspec.json.encode(s)


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"
        return consumer


class _Consumer(driver.Consumer):
    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)


class _Transport(driver.Transport):
    Consumer = _Consumer


class App(faust.App):
    """A Faust application that reads a workspace's topics, committed records only.

    `prefix` is the workspace's, and `schema_registry` the properties of its registry's client, if it has one.
    Everything else is for Faust: `broker`, `store`, `datadir`, …
    """

    def __init__(
        self,
        name: str,
        *,
        prefix: str = "headwater.",
        schema_registry: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self._prefix = prefix
        self._values = Values(registry=schema_registry)
        options.setdefault("web_enabled", False)
        options.setdefault("topic_disable_leader", True)
        super().__init__(name, **options)

    def _new_transport(self) -> Any:
        return _Transport(self.conf.broker_consumer, self)

    def changes(self, topic: str) -> Any:
        """A topic of the workspace as typed records: `segment-changes` holds SegmentChange, and so on (`RECORDS`).

        Raises:
            ValueError: there is no such topic, or it is none for readers.
        """
        kind = Delivery if topic.startswith("deliveries.") else RECORDS.get(topic)
        if kind is None:
            known = ", ".join(RECORDS)
            raise ValueError(f"{topic!r} is no topic for readers; there are {known} and deliveries.<destination>")
        codec = f"headwater-{self._prefix}{topic}"
        codecs.register(codec, _Codec(topic, kind, self._values))
        return self.topic(self._prefix + topic, key_serializer="raw", value_serializer=codec, value_type=None)

    def on_segment_change(
        self, *segments: str, changes: Collection[str] = ("entered", "exited")
    ) -> Callable[[Reaction[SegmentChange]], Any]:
        """React to changes of these segments (of all, if none is named)."""

        def wanted(change: SegmentChange) -> bool:
            return change.change in changes and (not segments or change.segment in segments)

        return self._reaction("segment-changes", wanted)

    def on_profile_change(self, *changes: str) -> Callable[[Reaction[ProfileChange]], Any]:
        """React to changes of profiles of these kinds (created, updated, merged, …; all, if none is named)."""
        return self._reaction("profile-changes", lambda change: not changes or change.change in changes)

    def _reaction(self, topic: str, wanted: Callable[[Any], bool]) -> Callable[[Reaction[Any]], Any]:
        source = self.changes(topic)

        def decorate(reaction: Reaction[Any]) -> Any:
            async def follow(stream: Any) -> None:
                async for change in stream:
                    if wanted(change):
                        await reaction(change)

            return self.agent(source, name=f"{reaction.__module__}.{reaction.__qualname__}")(follow)

        return decorate
