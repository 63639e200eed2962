"""The sample shop: the CDNOW purchases as raw tracking events.

The data has days only. They are shifted so that the last one is the day before `today`; the purchases of a day are
spread over it by their order in the file.
"""

import csv
import gzip
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import msgspec

DAY_MS = 86_400_000


class Purchase(NamedTuple):
    """One row: the line it stands in (the first after the header is 1), customer, time in ms, CDs and dollars."""

    line: int
    customer: str
    time: int
    cds: int
    dollars: float


def purchases(path: Path, today: date) -> list[Purchase]:
    """The purchases in the order of their times.

    Raises:
        FileNotFoundError: there is no such file.
    """
    with gzip.open(path, "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    per_day = Counter(row["date"] for row in rows)
    shift = today - timedelta(days=1) - date.fromisoformat(max(per_day))
    seen: Counter[str] = Counter()
    found = []
    for line, row in enumerate(rows, start=1):
        day = date.fromisoformat(row["date"]) + shift
        midnight = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)
        time = midnight + seen[row["date"]] * DAY_MS // per_day[row["date"]]
        seen[row["date"]] += 1
        found.append(Purchase(line, row["customer_id"], time, int(row["cds"]), float(row["dollars"])))
    return sorted(found, key=lambda purchase: (purchase.time, purchase.line))


def raw_events(path: Path, today: date) -> Iterator[tuple[bytes, bytes]]:
    """The purchases as (key, value) of raw records: `Order Completed` events, keyed by customer."""
    encode = msgspec.json.Encoder().encode
    for purchase in purchases(path, today):
        stamp = datetime.fromtimestamp(purchase.time / 1000, UTC).isoformat(timespec="milliseconds")
        event = {
            "type": "track",
            "messageId": f"cdnow-{purchase.line}",
            "event": "Order Completed",
            "userId": purchase.customer,
            "timestamp": stamp.replace("+00:00", "Z"),
            "properties": {"total": purchase.dollars, "quantity": purchase.cds, "currency": "USD"},
        }
        yield purchase.customer.encode(), encode(event)
