"""Files that people keep beside a process, in YAML; what nobody but their owner may read is written here."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import SettingsError


class UnreadableError(SettingsError):
    """A file is there, and what it holds cannot be had."""


class _StandsTwiceError(yaml.MarkedYAMLError):
    """Two equal keys of a mapping: of two values one would be passed over in silence."""


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        # Not what `<<` brings along: that is meant to be overridden.
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise _StandsTwiceError(problem_mark=key.start_mark)
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def is_there(path: Path, called: str) -> bool:
    """Whether there is something of that name, be it a pipe or a folder: `read_yaml` tells what is wrong with it.
    Raises UnreadableError: nobody knows, for its folder is one that this process may not look into."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError as error:
        raise _unreadable(path, called, error) from None
    return True


def read_yaml(path: Path, called: str) -> Any:
    """What a file holds; `called` is what people call it. What is wrong is told without a word of the file: a line of
    it may be a secret. Raises SettingsError, UnreadableError."""
    what = "it is not valid YAML"
    try:
        # The loader makes nothing but what stands in YAML's own safe schema.
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506
    except OSError as error:
        raise _unreadable(path, called, error) from None
    except yaml.MarkedYAMLError as error:
        if isinstance(error, _StandsTwiceError):
            what = "a key stands twice"
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}" if mark is not None else str(path)
    # Impossible dates, depth, tags: the parser raises whatever it stumbles over.
    except Exception:  # noqa: BLE001
        where = str(path)
    raise SettingsError(f"The {called} cannot be used: {what}.", where, "correct it")


def _unreadable(path: Path, called: str, error: OSError) -> UnreadableError:
    advice = "name a file" if isinstance(error, IsADirectoryError) else "let this process read it"
    return UnreadableError(f"The {called} cannot be read: {error.strerror}.", str(path), advice)


def write_private_yaml(path: Path, document: Mapping[str, Any]) -> None:
    """Replace a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        yaml.safe_dump(document, file, sort_keys=False)
    fresh.replace(path)
