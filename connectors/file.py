"""A file of JSON lines: one delivery per line, on the disk (fsync) before it counts as delivered.

A person who is erased leaves the file: it is written anew without their lines, in place, so that whoever has it open
goes on. Copies that were made of it are the reader's business; the line about the erasure names the profile_ids.

After a crash a delivery may stand in the file twice, with the same `delivery_id`: telling them apart is the reader's
business. Several workers may write to one file; a line torn by a crash is cut off before the next is written.

Who may write definitions chooses the path, and may mistype it: what is Headwater's own, and a file that holds something
else than deliveries, is left as it is.
"""

import fcntl
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import msgspec

from connectors import rewritten
from connectors.base import Connector, Options, Outcome, delivered, is_withheld, retry
from pipeline.records import Delivery

_BLOCK = 65_536
# How a line of ours begins.
_BEGIN = b'{"delivery_id":"'


class FileOptions(Options):
    """`path` is the file; its folder is made if need be. A relative path begins where the deliver role was started."""

    path: Path


class FileConnector(Connector):
    """JSON lines, appended."""

    kind = "file"
    mode = "audience"
    max_batch = 500
    concurrency = 1
    keeps_order = True
    options_model = FileOptions

    def __init__(self, destination: str, options: FileOptions) -> None:
        super().__init__(destination, options)
        try:
            self._file = _opened(options.path)
        except (OSError, ValueError) as error:
            raise ValueError(f"the file of destination {destination} cannot be written: {error}") from error
        self._rewritten = options.path.with_name(f"{options.path.name}.rewritten")
        self._encode = msgspec.json.Encoder().encode

    def deliver(self, deliveries: Sequence[Delivery]) -> list[Outcome]:
        """Append all, or none: a batch that did not fit is cut off again."""
        outcomes: list[Outcome] = []
        some: list[Delivery] = []
        for delivery in deliveries:
            some.append(delivery)
            if delivery.action == "profile_erased":
                outcomes += self._deliver(some[:-1]) if some[:-1] else []
                some = []
                failed = next((outcome for outcome in outcomes if outcome.status != "delivered"), None)
                outcomes.append(failed or self._erase(delivery))
        return outcomes + (self._deliver(some) if some else [])

    def _erase(self, delivery: Delivery) -> Outcome:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            self._finish_rewriting()
            rewritten.write_without(self._file, self._rewritten, self._end_of_last_line(), delivery)
            self._finish_rewriting()
        except OSError as error:
            return retry(f"the file cannot be written anew: {error.strerror}")
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        return self._deliver([msgspec.structs.replace(delivery, identifiers=[])])[0]

    def _finish_rewriting(self) -> None:
        rewritten.put_in_place(self._file, self._rewritten)

    def _deliver(self, deliveries: Sequence[Delivery]) -> list[Outcome]:
        lines = b"".join(self._encode(delivery) + b"\n" for delivery in deliveries)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            try:
                self._finish_rewriting()
                end = self._end_of_last_line()
            except OSError as error:
                return [retry(f"the file cannot be written anew: {error.strerror}")] * len(deliveries)
            try:
                self._append(lines, end)
            except OSError as error:
                os.ftruncate(self._file, end)
                return [retry(f"the file cannot be written: {error.strerror}")] * len(deliveries)
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        return [delivered()] * len(deliveries)

    def _append(self, lines: bytes, end: int) -> None:
        os.ftruncate(self._file, end)
        written = 0
        while written < len(lines):
            written += os.pwrite(self._file, lines[written:], end + written)
        os.fsync(self._file)

    def _end_of_last_line(self) -> int:
        """The length of the file without a line that a crash tore."""
        end = os.fstat(self._file).st_size
        if end == 0 or os.pread(self._file, 1, end - 1) == b"\n":
            return end
        while end > 0:
            start = max(0, end - _BLOCK)
            newline = os.pread(self._file, end - start, start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
        return 0

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def _opened(path: Path) -> int:
    """The file at `path`, made if it is not there. Raises OSError; ValueError: it is not one to be written to."""
    if is_withheld(path):
        raise ValueError(f"{path} is Headwater's own; name a place outside its state folder and its settings")
    path.parent.mkdir(parents=True, exist_ok=True)
    # A pipe that nobody reads would hold up whoever opens it.
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise ValueError(f"{path} is no file")
        begin = os.pread(file, len(_BEGIN), 0)
        if begin != _BEGIN[: len(begin)]:
            raise ValueError(f"{path} holds something else than deliveries; name a file of its own, or move that one")
    except BaseException:
        os.close(file)
        raise
    return file
