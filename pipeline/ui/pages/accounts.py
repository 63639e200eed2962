"""Accounts: a list, one of them with its people and what they do, and which of those that do not pay do most."""

from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.responses import Response

from pipeline.api.client import ApiError
from pipeline.ui import charts
from pipeline.ui.web import Entry, Page, Refused

_PAGE = 25
_DAYS = 30
_ALERTS = 10


def entries() -> tuple[Entry, ...]:
    """The addresses of the pages about accounts."""
    return (
        Entry("GET", "/accounts", "viewer", all_of_them),
        Entry("GET", "/accounts/ranking", "viewer", ranking),
        Entry("GET", "/accounts/of/{account:path}", "viewer", one),
    )


def all_of_them(page: Page) -> Response:
    """A list by name, and the newest alerts."""
    begins, after = page.query.get("q", "").strip()[:200], page.query.get("after", "")
    found = page.client.list_accounts(begins, after, _PAGE)
    return page.render(
        "accounts.html",
        accounts=found["accounts"],
        next=found["next"],
        after=after,
        wanted=begins,
        alerts=page.client.list_alerts(limit=_ALERTS),
    )


def one(page: Page) -> Response:
    """Everything about one account."""
    name, after = page.path["account"], page.query.get("after", "")
    client = page.client
    found = client.get_account(name)
    if found is None:
        raise Refused(404, "There is no such account.")
    asked = page.query.get("why", "")
    held = client.get_profile_segments(f"account:{name}")
    others = {each["segment"] for each in held}
    people = client.get_people(name, after, _PAGE)
    return page.render(
        "account.html",
        name=name,
        account=found["account"],
        size=found["people"],
        people=sorted(people["people"], key=lambda each: -each.get("recent_events", 0)),
        next=people["next"],
        after=after,
        held=held,
        others=[
            each["segment"]
            for each in client.list_segments()
            if each["entity"] == "account" and each["segment"] not in others
        ],
        alerts=client.list_alerts(name, _ALERTS),
        activity=_activity(page, name),
        asked=asked,
        why=_why(page, name, asked) if asked else None,
    )


def _activity(page: Page, name: str) -> dict[str, Any]:
    found = page.client.get_activity(name, _DAYS)
    by_day = {one["day"] // 86_400_000: one["events"] for one in found["days"]}
    today = datetime.now(UTC).date()
    days = [today - timedelta(days=_DAYS - 1 - number) for number in range(_DAYS)]
    values = [by_day.get((day - datetime(1970, 1, 1, tzinfo=UTC).date()).days, 0) for day in days]
    labels = [f"{day:%-d %b}" for day in days]
    total = sum(values)
    return {
        **found,
        "total": total,
        "chart": charts.bars(values, labels, f"{total:,} events of the people of {name}, by day"),
        "rows": [(f"{day:%Y-%m-%d}", value) for day, value in zip(days, values, strict=True) if value],
    }


def _why(page: Page, name: str, segment: str) -> dict[str, Any]:
    try:
        return page.client.get_why(f"account:{name}", segment)
    except ApiError as error:
        if error.status not in (404, 422):
            raise
        return {"untold": error.detail}


def ranking(page: Page) -> Response:
    """The accounts whose people did most, of those that are meant."""
    asked = {name: page.query.get(name, "").strip()[:200] for name in ("segment", "without", "trait", "among")}
    found: dict[str, Any] = {"ranked": [], "judged": 0, "all": True, "days": _DAYS}
    wrong = ""
    try:
        found = page.client.rank_accounts(**asked, days=_DAYS, limit=_PAGE)
    except ApiError as error:
        if error.status not in (400, 403):
            raise
        wrong = error.detail
    most = max((one["events"] for one in found["ranked"]), default=0) or 1
    known = [each["segment"] for each in page.client.list_segments() if each["entity"] == "account"]
    return page.render(
        "ranking.html", asked=asked, found=found, known=known, most=most, wrong=wrong, status=422 if wrong else 200
    )
