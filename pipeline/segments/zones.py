"""Time zones, and what stands for the data they were read from: it comes anew with the system or with `tzdata`, several
times a year, and days may begin at other instants then."""

import zoneinfo
from functools import cache
from hashlib import blake2b
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

# Nothing is ever changed in it.
_SETTLED = "UTC"


class Zone(NamedTuple):
    """A time zone, and a digest of its data."""

    info: zoneinfo.ZoneInfo
    digest: bytes


@cache
def zone_of(name: str) -> Zone:
    """The zone of an IANA name. Both are of the same data for as long as the process lives, whatever is installed
    meanwhile."""
    data = _data_of(name)
    return Zone(zoneinfo.ZoneInfo.from_file(BytesIO(data), name), blake2b(data, digest_size=8).digest())


def digests_of(names: set[str]) -> tuple[bytes, ...]:
    """The digests of the zones whose data may change."""
    return tuple(zone_of(name).digest for name in sorted(names - {_SETTLED}))


def _data_of(name: str) -> bytes:
    parts = name.split("/")
    for folder in zoneinfo.TZPATH:
        path = Path(folder, *parts)
        if path.is_file():
            return path.read_bytes()
    return files("tzdata").joinpath("zoneinfo", *parts).read_bytes()
