"""Who is kept out, and the keys of their events: what the privacy role knows of both, and writes."""

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from pipeline.privacy.vault import KEYS, SUPPRESSIONS, WRITER
from pipeline.records import Suppression, encode
from pipeline.runtime.kafka.apply_log import ApplyTransaction
from pipeline.settings import Settings
from pipeline.vault import KeyRing, leaf_of

_decode = msgspec.json.Decoder(Suppression).decode
Row = tuple[str, int, bytes | None, bytes | None]


class Keeping:
    """The list of a workspace, by actor, and its keys."""

    def __init__(self, settings: Settings) -> None:
        self.suppressions: dict[str, Suppression] = {}
        self._settings = settings
        self._ring = KeyRing()
        self._transaction: ApplyTransaction | None = None

    def take(self, topic: str, key: bytes, value: bytes | None) -> None:
        """Take in a record of `keys` or `suppressions`."""
        if topic == KEYS:
            self._ring.add(key, value)
        elif value is None:
            self.suppressions.pop(key.decode(), None)
        else:
            self.suppressions[key.decode()] = _decode(value)

    def keep_out(self, actors: Iterable[str], now_ms: int, request_id: str) -> None:
        """Keep these out, before anything is decided."""
        rows = []
        for actor in actors:
            kept = self.suppressions.get(actor)
            if kept is None or not kept.epoch or kept.consented_at > kept.at:
                rows.append(self._row(actor, kept.epoch if kept is not None else 0, now_ms, request_id))
            # Else they are erased, and `profiles` is behind: who is found to be somebody else is released again.
        self._write(rows)

    def release(self, request_id: str, erased: Collection[str]) -> None:
        """Who was listed beforehand, and by the word of the identity stage is not this person, is somebody else:
        `profiles` may be older than an unlink."""
        others = [
            (actor, kept)
            for actor, kept in self.suppressions.items()
            if kept.request_id == request_id and actor not in erased and kept.consented_at <= kept.at
        ]
        rows: list[Row] = []
        for actor, kept in others:
            if kept.epoch:
                # They had been erased before, and had consented anew: who had not is not listed.
                self.suppressions[actor] = back = msgspec.structs.replace(kept, consented_at=kept.at + 1)
                rows.append((SUPPRESSIONS, 0, actor.encode(), encode(back)))
            else:
                del self.suppressions[actor]
                rows.append((SUPPRESSIONS, 0, actor.encode(), None))
        self._write(rows)

    def has_news(self, erased: Mapping[str, tuple[int, int, str]]) -> bool:
        """Whether `destroy` would have something to do."""
        return any(self._is_news(actor, epoch) for actor, (epoch, _, _) in erased.items())

    def destroy(self, erased: Mapping[str, tuple[int, int, str]]) -> None:
        """Destroy the keys of these actors, and keep them out: in one transaction, once for each epoch. By actor: the
        epoch of the erasure, until when what happened is kept out, the request."""
        rows: list[Row] = []
        for actor, (epoch, at, request_id) in sorted(erased.items()):
            if self._is_news(actor, epoch):
                life = 0
                while self._ring.is_destroyed(leaf_of(actor.encode(), life)):
                    life += 1
                if self._ring.is_ready:
                    rows += [(KEYS, 0, *each) for each in self._ring.destroy(leaf_of(actor.encode(), life))]
                rows.append(self._row(actor, epoch, at, request_id))
        self._write(rows)

    def _is_news(self, actor: str, epoch: int) -> bool:
        known = self.suppressions.get(actor)
        return known is None or known.epoch < epoch

    def close(self) -> None:
        """Let go of the connection."""
        if self._transaction is not None:
            self._transaction.close()

    def _row(self, actor: str, epoch: int, at: int, request_id: str) -> Row:
        kept = Suppression(at, request_id, epoch)
        self.suppressions[actor] = kept
        return SUPPRESSIONS, 0, actor.encode(), encode(kept)

    def _write(self, rows: Sequence[Row]) -> None:
        if rows:
            self._transaction = self._transaction or ApplyTransaction(self._settings, WRITER)
            self._transaction.write(rows)
