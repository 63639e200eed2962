"""Drafts of segments, kept beside the pages until they are published: one small file each, its author's own."""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import InputError
from pipeline.ui.forms import fields_of, tree_of
from pipeline.ui.tree import Node

_MOST = 100
_MAX_BYTES = 1_000_000
_KEY = re.compile(r"[0-9a-f]{32}")


class Draft(NamedTuple):
    """A draft as its author finds it again: `key` is the name of its file, `begun` the segment and version that it was
    made from."""

    key: str
    name: str
    saved_at: int
    tree: Node
    begun: str = ""


class Drafts:
    """The drafts of everybody, by user."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, user: str, tree: Node, begun: str = "") -> None:
        """Keep a draft; one of the same name is replaced. Raises InputError."""
        folder = self._folder_of(user)
        text = json.dumps({"saved_at": time.time_ns() // 1_000_000, "fields": fields_of(tree), "begun": begun})
        key = _key(tree.get("name"))
        if len(text) > _MAX_BYTES:
            raise InputError("The draft is too large.", "", "split it with “is in segment”")
        with _kept():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if len(list(folder.glob("*.json"))) >= _MOST and not (folder / f"{key}.json").exists():
                raise InputError(f"You have {_MOST} drafts already.", "", "delete some")
            fresh = folder / f"{key}.new"
            fresh.write_text(text)
            os.replace(fresh, folder / f"{key}.json")

    def all(self, user: str) -> list[Draft]:
        """The drafts of a user, the newest first."""
        found = [self.read(user, path.stem) for path in self._folder_of(user).glob("*.json")]
        return sorted((one for one in found if one is not None), key=lambda one: -one.saved_at)

    def read(self, user: str, key: str) -> Draft | None:
        """One draft; None if it is not there or cannot be read any more."""
        if not _KEY.fullmatch(key):
            return None
        try:
            held = json.loads((self._folder_of(user) / f"{key}.json").read_text())
            tree = tree_of((str(name), str(text)) for name, text in held["fields"])
            saved_at, begun = int(held["saved_at"]), str(held.get("begun", ""))
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError, InputError):
            return None
        return Draft(key, tree.get("name") or "(without a name)", saved_at, tree, begun)

    def delete(self, user: str, key: str) -> None:
        """Delete a draft, if it is there. Raises InputError."""
        if _KEY.fullmatch(key):
            with _kept():
                (self._folder_of(user) / f"{key}.json").unlink(missing_ok=True)

    def published(self, user: str, name: str) -> None:
        """What was published is no draft any more."""
        self.delete(user, _key(name))

    def _folder_of(self, user: str) -> Path:
        return self._folder / hashlib.sha256(user.encode()).hexdigest()[:32]


@contextmanager
def _kept() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = f"The drafts cannot be kept here: {error.strerror}."
        raise InputError(what, "", "tell who runs these pages; drafts stand in `state_dir`") from None


def _key(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]
