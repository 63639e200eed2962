"""How the pipeline does, for who runs it: what is wrong now, throughput, latency, lag, destinations, dead letters,
violations of contracts, history that is being read, and how segments grow."""

from datetime import UTC, datetime
from typing import Any

from starlette.responses import Response

from pipeline.ui import charts
from pipeline.ui.charts import Line
from pipeline.ui.web import Entry, Page, Refused, go, refusals_told

_LETTERS = 100
_GROWING = 12
_DAYS = 7
_HOUR_MS = 3_600_000
_NOT_WELL = {"fails", "nobody delivers", "stuck"}


def entries() -> tuple[Entry, ...]:
    """The addresses of the pages for who runs it."""
    return (
        Entry("GET", "/operations", "viewer", overview),
        Entry("GET", "/operations/dead-letters", "viewer", letters),
        Entry("GET", "/operations/dead-letters/{partition}/{offset}", "viewer", letter),
        Entry("POST", "/operations/dead-letters/replay", "operator", replay),
    )


def overview(page: Page) -> Response:
    """Everything at a glance."""
    found = page.client.get_operations()
    context = {
        "found": found,
        "wrong": _wrong(found),
        "roles": _roles(found),
        "throughput": _throughput(found),
        "latency": _latency(found),
        "backfill": _backfill(page, found),
        "at": found["at"],
    }
    if page.part:
        return page.render("parts/operations.html", **context)
    growth = page.client.get_growth(days=_DAYS, limit=_GROWING)
    now = found["at"]
    growing = [segment_growth(one, now, _DAYS) for one in growth["segments"]]
    return page.render("operations.html", growing=growing, all=growth["all"], **context)


def _wrong(found: dict[str, Any]) -> list[str]:
    """What somebody should look at, in sentences."""
    said = [f"{what} cannot be looked at: {why}" for what, why in found["troubles"].items()]
    for one in found["roles"]:
        if one["waits"] and one["working"] == 0 and not one["group"].startswith("deliver-"):
            said.append(f"{one['group']} has {one['behind']:,} records waiting, and nobody works on them.")
        elif one["stuck"] and not one["group"].startswith("deliver-"):
            said.append(f"{one['group']} has {one['behind']:,} records waiting, and has done nothing for a minute.")
    said += [
        f"The destination {one['destination']}: {one['state']}{': ' + one['failure'] if one['failure'] else ''}."
        for one in found["destinations"]
        if one["state"] in _NOT_WELL
    ]
    recent = found["dead_letters"]["recent"]
    if recent:
        said.append(f"{recent:,} dead letter{'' if recent == 1 else 's'} in the last hour.")
    return said


def _clock(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1_000, UTC):%H:%M}"


def _roles(found: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for one in found["roles"]:
        lag = [each["groups"].get(one["group"], {}).get("behind") for each in found["throughput"]]
        title = f"{one['group']}: how far behind, in the last hour"
        rows.append({**one, "spark": charts.spark(lag, title) if len(lag) > 1 else ""})
    return rows


def _throughput(found: dict[str, Any]) -> dict[str, Any] | None:
    places = found["throughput"]
    if len(places) < 2:
        return None
    names = [name for name in ("ingest", "unify", "identity") if any(name in one["groups"] for one in places)]
    shown = [Line(name, [one["groups"].get(name, {}).get("done") for one in places]) for name in names]
    title = "Records done a second, by role"
    return {
        "chart": charts.lines(shown, [_clock(one["at"]) for one in places], title),
        "names": names,
        "rows": [(_clock(one["at"]), [one["groups"].get(name, {}).get("done") for name in names]) for one in places],
    }


def _latency(found: dict[str, Any]) -> dict[str, Any] | None:
    minutes = found["latency"]
    if not minutes:
        return None
    names = {"p50_ms": "half are faster", "p95_ms": "95 of 100", "p99_ms": "99 of 100"}
    newest = minutes[-1]
    shown = [Line(text, [one[name] for one in minutes]) for name, text in names.items()]
    return {
        "chart": charts.lines(shown, [_clock(one["at"]) for one in minutes], "Milliseconds from received to seen"),
        "names": list(names.values()),
        "newest": newest,
        "rows": [(_clock(one["at"]), [one[name] for name in names], one["events"]) for one in minutes],
    }


def _backfill(page: Page, found: dict[str, Any]) -> dict[str, Any] | None:
    """How far the history is read that new rules wait for; None if all are in force."""
    if not found["generation"]["not_in_force"]:
        return None
    return progress_of(page)


def progress_of(page: Page) -> dict[str, Any] | None:
    """How far new definitions are from being in force; None once they are."""
    told = page.client.get_backfills()
    if not told["not_in_force"]:
        return None
    partitions = [one for one in told["partitions"] if one["in_force"] < told["not_in_force"]]
    read, until = sum(one["read"] for one in partitions), sum(one["until"] for one in partitions)
    return {"generation": told["not_in_force"], "partitions": partitions, "read": read, "until": until}


def segment_growth(one: dict[str, Any], now_ms: int, days: int) -> dict[str, Any]:
    """The sizes a segment had, hour by hour, worked out backwards from what it has now."""
    first = (now_ms - days * 86_400_000) // _HOUR_MS
    hours = {each["at"] // _HOUR_MS: each for each in one["hours"]}
    size, sizes = one["size"], []
    for hour in range(now_ms // _HOUR_MS, first, -1):
        sizes.append(max(0, size))
        if hour in hours:
            size -= hours[hour]["entered"] - hours[hour]["exited"]
    sizes.reverse()
    entered, exited = (sum(each[what] for each in one["hours"]) for what in ("entered", "exited"))
    labels = [
        f"{datetime.fromtimestamp(hour * 3_600, UTC):%-d %b}" for hour in range(first + 1, first + 1 + len(sizes))
    ]
    title = f"Size of {one['segment']} in the last {days} days: from {sizes[0]:,} to {one['size']:,}"
    by_day: dict[str, list[int]] = {}
    for each in one["hours"]:
        day = f"{datetime.fromtimestamp(each['at'] / 1_000, UTC):%Y-%m-%d}"
        counts = by_day.setdefault(day, [0, 0])
        counts[0] += each["entered"]
        counts[1] += each["exited"]
    return {
        **one,
        "entered": entered,
        "exited": exited,
        "change": one["size"] - sizes[0],
        "spark": charts.spark(sizes, title),
        "chart": charts.lines([Line(one["segment"], sizes)], labels, title),
        "days": sorted(by_day.items(), reverse=True),
    }


# ------------------------------------------------------------------------------------------------------ dead letters


def letters(page: Page) -> Response:
    """The newest of what could not be used, by reason."""
    reason = page.query.get("reason", "")[:100]
    found = page.client.list_dead_letters(reason, _LETTERS)
    return page.render(
        "dead_letters.html", letters=found["letters"], known=found["known"], reasons=found["reasons"], reason=reason
    )


def letter(page: Page) -> Response:
    """One of them, and a form to mend it."""
    with refusals_told():
        found = page.client.get_dead_letter(f"{page.path['partition']}/{page.path['offset']}")
    return page.render("dead_letter.html", letter=found)


def replay(page: Page) -> Response:
    """Send some again, or a mended one."""
    ids = [one for one in page.fields("id") if one][:1_000]
    if not ids:
        raise Refused(422, "None was chosen.")
    # A browser sends lines as CRLF; what was kept has them as they were.
    mended = page.field("value").replace("\r\n", "\n") if page.field("mended") else None
    with refusals_told():
        sent = page.client.replay_dead_letters(ids, mended)
    told = ", ".join(f"{count:,} to {topic}" for topic, count in sent.items())
    return go("/operations/dead-letters", f"Sent again: {told}. What is refused again is here anew.")
