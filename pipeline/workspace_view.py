"""What a workspace says of itself, as it is read: whose replay it is, how far, and where it went on."""

import time

from pipeline.errors import BrokerError, TopicMissing
from pipeline.runtime.kafka.doors import TopicReader
from pipeline.settings import Settings
from pipeline.workspaces import (
    ORIGIN_KEY,
    POSITION_KEY,
    SUCCESSOR_KEY,
    TOPIC,
    ErasureCopied,
    ReplayOrigin,
    ReplayPosition,
    Successor,
    UnlinkCopied,
    WorkspaceRecord,
    decision_key,
    decode_workspace_record,
)

_LOOK_AGAIN_S = 10.0


class WorkspaceView:
    """The topic `workspace`, followed: it is small, and looked at now and then."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._reader: TopicReader | None = None
        self._not_before_s = 0.0
        self._found: dict[bytes, WorkspaceRecord] = {}
        self.is_known = False
        """Whether what it says, if anything, has been read: before, it may be a copy, or have gone on."""

    def look(self) -> None:
        """Take in what has come. A workspace without the topic (made by an earlier release) says nothing. BrokerError:
        it is not known what it says."""
        if self._reader is None:
            if time.monotonic() < self._not_before_s:
                return
            try:
                self._reader = TopicReader(self._settings, [TOPIC], fetch_wait_ms=200)
            except TopicMissing:
                self._not_before_s = time.monotonic() + _LOOK_AGAIN_S
                self.is_known = True
                return
            try:
                records = list(self._reader.read_to_end())
            except BrokerError:
                self.close()
                raise
            self.is_known = True
        else:
            records = self._reader.read(1_000, 0)
        for record in records:
            if record.key is None:
                continue
            if record.value is None:
                self._found.pop(record.key, None)
            else:
                self._found[record.key] = decode_workspace_record(record.value)

    @property
    def origin(self) -> ReplayOrigin | None:
        """Whose replay it is, if it is one."""
        found = self._found.get(ORIGIN_KEY)
        return found if isinstance(found, ReplayOrigin) else None

    @property
    def position(self) -> ReplayPosition | None:
        """How far it has come."""
        found = self._found.get(POSITION_KEY)
        return found if isinstance(found, ReplayPosition) else None

    @property
    def successor(self) -> Successor | None:
        """Where it goes on."""
        found = self._found.get(SUCCESSOR_KEY)
        return found if isinstance(found, Successor) else None

    @property
    def erasures(self) -> dict[bytes, int]:
        """Which erasures a replay has copied: actor's key → received."""
        return {one.actor.encode(): one.received for one in self._found.values() if isinstance(one, ErasureCopied)}

    @property
    def unlinks(self) -> dict[bytes, UnlinkCopied]:
        """What a replay has copied of unlinks and their undoing, the last of each: by the old decision's key."""
        return {decision_key(key): one for key, one in self._found.items() if isinstance(one, UnlinkCopied)}

    @property
    def is_copy(self) -> bool:
        """Whether it is still filled by a replay, and speaks to nobody."""
        return self.origin is not None and not (self.position is not None and self.position.ended)

    def close(self) -> None:
        """Let go of the connection."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def view_of(settings: Settings) -> WorkspaceView:
    """What a workspace says of itself now."""
    view = WorkspaceView(settings)
    view.look()
    view.close()
    return view
