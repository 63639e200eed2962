"""Files that nobody but their owner may read."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml


def write_private_yaml(path: Path, document: Mapping[str, Any]) -> None:
    """Replace a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        yaml.safe_dump(document, file, sort_keys=False)
    fresh.replace(path)
