"""Receivers of webhooks, as a process of their own: they share no interpreter with what is tested.

    python -m tests.destinations.receiver FOLDER well=well dead=dead slow=slow flapping=flapping

prints a line `NAME PORT` for each, and appends a line to FOLDER/NAME.log for each request that was answered, or that
will be: `seconds status delivery_id profile_id sequence`. It ends with its standard input.

    behaviour   what becomes of a request
    well        taken
    slow        taken, and answered a second later
    flapping    taken for three seconds, refused with 503 for the next three, and so on
    dead        read, and never answered
    blind       taken, whatever it is, and not written down

Every 97th delivery is refused for good (422), whoever is asked.
"""

import asyncio
import json
import os
import sys
import time
from pathlib import Path

SLOW_S = 1.0
FLAPS_S = 3.0
REFUSED_EVERY, REFUSED_AT = 97, 5


def is_refused(sequence: int) -> bool:
    """Whether a delivery of this number is refused for good."""
    return sequence % REFUSED_EVERY == REFUSED_AT


class Receiver:
    def __init__(self, log: Path, behaviour: str) -> None:
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._behaviour = behaviour

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
                body = await reader.readexactly(int(headers.get(b"content-length", b"0")))
                if self._behaviour == "blind":
                    writer.write(b"HTTP/1.1 200 X\r\ncontent-length: 0\r\n\r\n")
                    continue
                status = self._judge(headers[b"webhook-id"].decode(), json.loads(body)["data"])
                if status is None:
                    continue
                if self._behaviour == "slow":
                    await asyncio.sleep(SLOW_S)
                writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % status)
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            return
        finally:
            writer.close()

    def _judge(self, delivery_id: str, data: dict[str, object]) -> int | None:
        now, sequence = time.time(), int(str(data["sequence"]))
        status = 422 if is_refused(sequence) else 200
        if self._behaviour == "dead":
            return None
        if self._behaviour == "flapping" and int(now / FLAPS_S) % 2:
            status = 503
        os.write(self._log, f"{now:.3f} {status} {delivery_id} {data['profile_id']} {sequence}\n".encode())
        return status


async def main(folder: Path, wanted: list[str]) -> None:
    servers = []
    for one in wanted:
        name, _, behaviour = one.partition("=")
        server = await asyncio.start_server(Receiver(folder / f"{name}.log", behaviour).serve, "127.0.0.1", 0)
        servers.append(server)
        print(name, server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2:]))
