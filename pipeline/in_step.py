"""A thread for each definition that wants one, in step with the definitions as they change.

Whoever is asked to stop is not waited for: what it talks to may take long to come back, and the others are to be looked
after. The next one of its name begins once it has ended. One that cannot be opened is tried again after a while.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from connectors.base import SecretFiles
from pipeline.records import Definition

_OPEN_AGAIN_S = 10.0


@dataclass(slots=True)
class _Running:
    version: int
    secrets: SecretFiles
    thread: threading.Thread
    stop: threading.Event

    def is_other(self, written: Definition) -> bool:
        return written.version != self.version or self.secrets.have_changed()


class Threads:
    """`kind` begins their names; `forget` is told whose name means nothing any more."""

    def __init__(self, kind: str, forget: Callable[[str], None]) -> None:
        self._kind = kind
        self._forget = forget
        self._running: dict[str, _Running] = {}
        self._ending: dict[str, _Running] = {}
        self._not_before: dict[str, float] = {}
        self._errors: list[BaseException] = []

    def follow(self, wanted: Mapping[str, Definition]) -> None:
        """Ask those to stop that are wanted no more, or otherwise. Raises what ended one by itself."""
        self.raise_error()
        self._ask_to_stop(
            [name for name, one in self._running.items() if name not in wanted or one.is_other(wanted[name])]
        )
        for name in [name for name, one in self._ending.items() if not one.thread.is_alive()]:
            del self._ending[name]
            self._forget(name)
        for name in [name for name in self._not_before if name not in wanted]:
            del self._not_before[name]
            self._forget(name)

    def may_start(self, name: str) -> bool:
        """Whether none of this name is there, and it is time to try."""
        is_there = name in self._running or name in self._ending
        return not is_there and time.monotonic() >= self._not_before.get(name, 0)

    def try_later(self, name: str) -> None:
        """It could not be opened."""
        self._not_before[name] = time.monotonic() + _OPEN_AGAIN_S

    def start(self, written: Definition, secrets: SecretFiles, serve: Callable[[threading.Event], None]) -> None:
        """Run `serve` until the event that it is given is set."""
        stop = threading.Event()

        def run() -> None:
            try:
                serve(stop)
            except BaseException as error:  # noqa: BLE001 - it is raised again where the threads are looked after
                self._errors.append(error)

        thread = threading.Thread(target=run, name=f"{self._kind}-{written.name}")
        self._running[written.name] = _Running(written.version, secrets, thread, stop)
        thread.start()

    def __contains__(self, name: str) -> bool:
        """Whether it runs, and was not asked to stop."""
        return name in self._running

    def _ask_to_stop(self, names: list[str]) -> None:
        for name in names:
            self._ending[name] = self._running.pop(name)
            self._ending[name].stop.set()

    def close(self) -> None:
        """Stop all, and wait for what is under way."""
        self._ask_to_stop(list(self._running))
        for one in self._ending.values():
            one.thread.join()

    def raise_error(self) -> None:
        """Raise what ended one by itself, if one was."""
        if self._errors:
            raise self._errors[0]
