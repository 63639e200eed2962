"""How fast files become raw records, and, with a broker, records of a topic.

    python -m bench.importing [--rows 200000] [--broker]

The same purchases as JSON lines, CSV and Parquet. CPU time, so that neighbours count little; with --broker `headwater
produce`'s own way into a topic of a broker on this machine, wall time.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.machine import load_average
from pipeline.admin import create_topics
from pipeline.broker import running_kafka
from pipeline.runtime.kafka.doors import produce_all
from pipeline.settings import Settings, load
from pipeline.sources.files import CsvMapping, inspect_file, read_rows

MAPPING = CsvMapping(event="Order Completed")
HEADS = ("userId", "timestamp", "properties.total", "properties.sku", "properties.city")


def purchases(rows: int) -> Iterator[tuple[Any, ...]]:
    """Rows of the columns `HEADS`."""
    for number in range(rows):
        at = f"2024-{number % 12 + 1:02d}-{number % 28 + 1:02d}T10:00:00Z"
        yield f"u{number % 50_000}", at, number % 500 + 0.5, f"sku-{number % 999:04d}", ("Gent", "Graz")[number % 2]


def write(folder: Path, rows: int) -> list[Path]:
    """The three files."""
    import pyarrow
    import pyarrow.parquet

    lines, table, columns = folder / "orders.jsonl", folder / "orders.csv", folder / "orders.parquet"
    with lines.open("w") as file, table.open("w") as cells:
        cells.write(",".join(HEADS) + "\n")
        for user, at, total, sku, city in purchases(rows):
            properties = {"total": total, "sku": sku, "city": city}
            event = {"type": "track", "event": "Order Completed", "userId": user, "timestamp": at}
            file.write(json.dumps({**event, "properties": properties}) + "\n")
            cells.write(f"{user},{at},{total},{sku},{city}\n")
    data = dict(zip(HEADS, map(list, zip(*purchases(rows), strict=True)), strict=True))
    pyarrow.parquet.write_table(pyarrow.table(data), columns)
    return [lines, table, columns]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--broker", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        files = write(Path(name), given.rows)
        for path in files:
            began = time.process_time()
            facts = inspect_file(path, MAPPING)
            looked = time.process_time() - began
            rows = sum(1 for _ in read_rows(path, facts, MAPPING))
            spent = time.process_time() - began
            assert rows == given.rows
            size = path.stat().st_size / rows
            print(
                f"{path.suffix[1:]}: {rows / spent:,.0f} rows/s of CPU ({looked / spent:.0%} of it the first reading), "
                f"{size:.0f} bytes a row"
            )
        if given.broker:
            with running_kafka(load(), temporary=True) as kafka:
                settings = Settings.model_validate(
                    {"bootstrap_servers": kafka.bootstrap_servers, "prefix": "import.", "state_dir": Path(name)}
                )
                create_topics(settings)
                for path in files:
                    began = time.monotonic()
                    facts = inspect_file(path, MAPPING)
                    records = ((row.key, row.value) for row in read_rows(path, facts, MAPPING))
                    produce_all(settings, "raw", records)
                    took = time.monotonic() - began
                    print(f"{path.suffix[1:]} into Kafka: {facts.rows / took:,.0f} rows/s, load {load_average():.1f}")


if __name__ == "__main__":
    main()
