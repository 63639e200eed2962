"""The report of a run: a table in Markdown, and a plot."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.core.measure import Measured


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """(median, least, most)."""
    return statistics.median(values), min(values), max(values)


def write_report(
    out: Path, settings: Mapping[str, Any], results: Mapping[str, Sequence[Measured]], problems: Sequence[str]
) -> str:
    """Write core.md and core.png; gives the text."""
    lines = [
        "# Core job",
        "",
        ", ".join(f"{name} {value:,}" for name, value in settings.items()) + ". Median (least–most).",
        "",
        "| | events/s | CPU µs an event | broker CPU µs an event | memory MB | of Kafka Streams: rate | CPU |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    measured = {name: found for name, found in results.items() if found}
    base = measured.get("kafka streams")
    for name, found in measured.items():
        rate = spread([one.rate for one in found])
        cpu = spread([one.cpu_us for one in found])
        of_broker = spread([one.broker_cpu_us for one in found])
        memory = max(one.memory_bytes for one in found) / 1e6
        ratios = ("", "")
        if base:
            ratios = (
                f"{rate[0] / spread([one.rate for one in base])[0]:.2f}",
                f"{cpu[0] / spread([one.cpu_us for one in base])[0]:.2f}",
            )
        lines.append(
            f"| {name} | {rate[0]:,.0f} ({rate[1]:,.0f}–{rate[2]:,.0f}) | {cpu[0]:.1f} ({cpu[1]:.1f}–{cpu[2]:.1f}) "
            f"| {of_broker[0]:.1f} | {memory:.0f} | {ratios[0]} | {ratios[1]} |"
        )
    lines += ["", *(f"- not counted: {problem}" for problem in problems)]
    text = "\n".join(lines)
    (out / "core.md").write_text(text + "\n")
    _plot(out / "core.png", measured)
    return text


def _plot(file: Path, results: Mapping[str, Sequence[Measured]]) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return  # the `bench` extra is not installed; the table says the same
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    of_rate, of_cpu = figure.subplots(1, 2)
    names = list(results)
    for axes, title, values in (
        (of_rate, "events/s", [[one.rate for one in results[name]] for name in names]),
        (of_cpu, "CPU µs an event", [[one.cpu_us for one in results[name]] for name in names]),
    ):
        medians = [statistics.median(found) for found in values]
        low = [median - min(found) for median, found in zip(medians, values, strict=True)]
        high = [max(found) - median for median, found in zip(medians, values, strict=True)]
        axes.barh(names, medians, xerr=[low, high], color="#4477aa", ecolor="#bb5566")
        axes.invert_yaxis()
        axes.set_title(title)
    figure.savefig(file, dpi=120)
