"""The process in which a function of somebody else runs: `python -m pipeline.runtime.function_child GROUP NAME IN OUT`.

Messages are JSON with four bytes of length before. It says ["ready", null] or ["failed", why], then answers each
argument with ["returned", value] or ["raised", what]. It ends when its parent does.
"""

import os
import resource
import sys
from importlib.metadata import entry_points
from typing import Any

import msgspec

_MAX_MEMORY_BYTES = 1 << 30
_LENGTH_BYTES = 4


def main() -> int:
    group, name, read, write = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY_BYTES, _MAX_MEMORY_BYTES))
    source, target = os.fdopen(read, "rb"), os.fdopen(write, "wb")

    def say(status: str, value: Any) -> None:
        try:
            message = msgspec.json.encode([status, value])
        except (TypeError, ValueError, OverflowError) as error:
            message = msgspec.json.encode(["raised", f"what it returned is not JSON: {error}"])
        target.write(len(message).to_bytes(_LENGTH_BYTES, "little") + message)
        target.flush()

    try:
        found = [each for each in entry_points(group=group) if each.name == name]
        if not found:
            say("failed", f"no installed package has {name} in its entry points {group}")
            return 1
        function = found[0].load()
    except Exception as error:  # noqa: BLE001 whatever the import of somebody else's package raises is told
        say("failed", f"{type(error).__name__}: {error}")
        return 1
    say("ready", None)
    while head := source.read(_LENGTH_BYTES):
        argument = msgspec.json.decode(source.read(int.from_bytes(head, "little")))
        try:
            value = function(argument)
        except Exception as error:  # noqa: BLE001 and whatever the function raises
            say("raised", f"{type(error).__name__}: {error}")
        else:
            say("returned", value)
    return 0


if __name__ == "__main__":
    sys.exit(main())
