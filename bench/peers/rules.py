"""The core job's logic for the peers in Python: plain dictionaries, daily buckets, only the rules an event touches.

A profile is {"traits": {name: [time, value]}, "totals": {event: [count, first, last]}, "days": {measure: {day: value}},
"members": [rules], "clock": ms}. Buckets are as fine as the windows need here: the events of the job span hours.
"""

import json
from typing import Any

DAY_MS = 86_400_000


class Rules:
    """The rules, by the event they count."""

    def __init__(self, file: str) -> None:
        with open(file) as text:
            rules = json.load(text)
        self.all: list[dict[str, Any]] = rules
        self.by_event: dict[str, list[dict[str, Any]]] = {}
        # Rules over the same events and values share their buckets.
        self.measures: dict[str, list[tuple[str, str, str]]] = {}
        for rule in rules:
            rule["measure"] = "|".join((rule["event"], rule["of"], rule["category"]))
            self.by_event.setdefault(rule["event"], []).append(rule)
            measure = (rule["measure"], rule["of"], rule["category"])
            of_event = self.measures.setdefault(rule["event"], [])
            if measure not in of_event:
                of_event.append(measure)

    def apply(
        self, profile: dict[str, Any] | None, event: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
        """(profile, profile change, segment changes) after an event."""
        name, time = event["event"], event["time"]
        person = event["identifiers"][0]
        fresh = profile is None
        if profile is None:
            profile = {"traits": {}, "totals": {}, "days": {}, "members": [], "clock": 0}
        change: dict[str, Any] = {"person": person, "at": time, "message_id": event["message_id"]}
        total = profile["totals"].get(name)
        if total is None:
            total = profile["totals"][name] = [1, time, time]
        else:
            total[0] += 1
            total[1] = min(total[1], time)
            total[2] = max(total[2], time)
        change["totals"] = {name: total}
        traits = profile["traits"]
        written = {}
        for trait, value in (event.get("traits") or {}).items():
            there = traits.get(trait)
            if there is None or there[0] <= time:
                if there is None or there[1] != value:
                    written[trait] = value
                traits[trait] = [time, value]
        if written:
            change["traits"] = written

        day = str(time // DAY_MS)
        properties = event.get("properties") or {}
        for measure, of, category in self.measures.get(name, ()):
            if not category or properties.get("category") == category:
                days = profile["days"].setdefault(measure, {})
                days[day] = days.get(day, 0) + (properties.get(of, 0) if of else 1)

        clock = profile["clock"] = max(profile["clock"], event["received"])
        members = profile["members"]
        changes = []
        for rule in self.all if fresh else self.by_event.get(name, ()):
            since = (clock - rule["days"] * DAY_MS) // DAY_MS
            value = sum(n for day, n in profile["days"].get(rule["measure"], {}).items() if int(day) > since)
            is_member = (value >= rule["least"]) is not rule["negated"]
            if is_member is not (rule["name"] in members):
                if is_member:
                    members.append(rule["name"])
                else:
                    members.remove(rule["name"])
                changes.append(
                    {
                        "person": person,
                        "segment": rule["name"],
                        "change": "entered" if is_member else "exited",
                        "at": time,
                        "message_id": event["message_id"],
                    }
                )
        if changes:
            change["segments"] = {one["segment"]: one["change"] for one in changes}
        return profile, change, changes
