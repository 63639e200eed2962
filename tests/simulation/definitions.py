"""Random definitions of segments and computed traits, from the whole grammar of docs/segments.md.

The common rules are drawn often, the rare ones sometimes. Names, values and lengths of time are those of the small
worlds, so that rules meet the events they are about.
"""

import random
from datetime import UTC, datetime
from typing import Any

from tests.oracle.durations import instant_ms
from tests.simulation.vocabulary import CITIES, EVENT_NAMES, PATHS, PLANS

WINDOWS = ("1s", "10s", "1m", "5m", "1h", "6h", "1d", "7d", "30d")
SHORT = ("1ms", "1s", "1m", "1h", "6h", "1d")
WIDE_WINDOWS = (*WINDOWS, "1d12h", "1m30s", "2w", "1y", "100y")
ZONES = ("UTC", "Europe/Berlin", "America/Lima", "Asia/Kolkata")
Rule = dict[str, Any]


def make_segments(rng: random.Random, start_ms: int = 1_700_000_000_000, wide: bool = False) -> list[Rule]:
    """The definitions of one world: a few segments, now and then a computed trait. `wide` draws what is rarer still,
    too; without it a seed gives what it always gave."""
    return Author(rng, start_ms, wide).write()


class Author:
    """Writes the rules of one world."""

    def __init__(self, rng: random.Random, start_ms: int, wide: bool = False) -> None:
        self.rng = rng
        self.start_ms = start_ms
        self.wide = wide
        self.windows = WIDE_WINDOWS if wide else WINDOWS
        self.segments: list[str] = []
        self.computed: list[tuple[str, str]] = []

    def write(self) -> list[Rule]:
        rng = self.rng
        definitions: list[Rule] = []
        for number in range(rng.choices((0, 1, 2), (6, 3, 1))[0]):
            definition = self.computed_trait(f"c{number}")
            definitions.append(definition)
            self.computed.append((definition["computed"], definition["compute"]["function"]))
        for number in range(rng.randint(1, 5)):
            name = f"s{number}"
            definition = {"segment": name, "when": self.rule(0)}
            if rng.random() < 0.04:
                definition["valid_from"] = self.instant()
            if rng.random() < 0.04:
                until = self.instant()
                if (instant_ms(until) or 0) > (instant_ms(definition.get("valid_from", "1990-01-01")) or 0):
                    definition["valid_until"] = until
            definitions.append(definition)
            self.segments.append(name)
        return definitions

    def instant(self) -> str:
        """An instant in or near the world's time."""
        rng = self.rng
        at = self.start_ms + rng.choice((0, 1_000, 3_600_000, 86_400_000, rng.randint(-86_400_000, 20 * 86_400_000)))
        text = datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return rng.choice((text + "Z", text, text[:10], text + "+01:00"))

    def rule(self, depth: int) -> Rule:
        rng = self.rng
        composite = 0.35 if depth == 0 else 0.15 if depth < 3 else 0.0
        if rng.random() < composite:
            kind = rng.choice(("all", "any"))
            return {kind: [self.rule(depth + 1) for _ in range(rng.choices((0, 1, 2, 3), (1, 2, 8, 4))[0])]}
        if rng.random() < 0.2 and depth < 4:
            return {"not": self.rule(depth + 1)}
        kinds = {
            "performed": 50,
            "trait": 14,
            "sequence": 16,
            "in_segment": 6 if self.segments else 0,
            "score": 4,
            "computed": 8 if self.computed else 0,
            "bucket": 3,
            "consent": 4,
        }
        kind = rng.choices(list(kinds), list(kinds.values()))[0]
        return {kind: self.computed_rule() if kind == "computed" else getattr(self, kind)()}

    # ------------------------------------------------------------------------------------------------------ leaves

    def in_segment(self) -> str:
        return self.rng.choice(self.segments)

    def consent(self) -> Any:
        return self.rng.choice(("marketing", {"purpose": "marketing", "is": self.rng.choice(("denied", "unknown"))}))

    def bucket(self) -> Rule:
        low = self.rng.choice((0, 25, 50))
        return {"salt": self.rng.choice(("a", "b")), "from": low, "to": low + self.rng.choice((25, 50))}

    def rarely(self, share: float) -> bool:
        """Whether something comes that is drawn in wide rules only."""
        return self.wide and self.rng.random() < share

    def trait(self) -> Rule:
        rng = self.rng
        if self.rarely(0.1):  # several traits, all of which must pass
            return {"plan": self.text_comparison(PLANS), "age": self.number_comparison()}
        name = rng.choice(("plan", "plan", "city", "since", "age"))
        if name == "since":
            return {name: self.moment_comparison()}
        if name == "age":
            return {name: self.number_comparison()}
        return {name: self.text_comparison(PLANS if name == "plan" else CITIES)}

    def text_comparison(self, values: tuple[str, ...]) -> Any:
        rng = self.rng
        value = rng.choice(values)
        if self.rarely(0.15):  # several operators, all of which must hold
            return {"starts_with": value[:1], "not_equals": rng.choice(values), "exists": True}
        if self.rarely(0.1):
            return {
                "as": "text",
                rng.choice(("equals", "contains", "less_than")): rng.choice((value, "1", "true", "5")),
            }
        return rng.choice(
            (
                value,
                {"equals": value},
                {"not_equals": value},
                {"in": list(rng.sample(values, 2))},
                {"not_in": [value]},
                {"contains": value[1:3]},
                {"not_contains": value[:2]},
                {"starts_with": value[:2]},
                {"ends_with": value[-2:]},
                {"regex": f"^{value[:2]}|{value[-1]}$"},
                {"regex_full": f"{value[0]}.*"},
                {"at_least": value},
                {"exists": rng.random() < 0.6},
                {"equals": {"trait": "city"}},
                {"not_equals": {"trait": "city"}},
            )
        )

    def number_comparison(self) -> Any:
        rng = self.rng
        if self.rarely(0.15):
            return {"at_least": rng.choice((0, 1, 5)), "less_than": rng.choice((5, 10)), "not_equals": 1}
        if self.rarely(0.1):
            return {rng.choice(("in", "not_in")): [1, 5.0, "5", True]}
        operator = rng.choice(("at_least", "at_most", "greater_than", "less_than", "equals", "not_equals", "between"))
        comparison: Rule = {operator: rng.choice((0, 1, 5, 10))}
        if operator == "between":
            comparison = {"between": [1, rng.choice((1, 5, 10))]}
        if rng.random() < 0.2:
            comparison["as"] = "number"
        return comparison

    def moment_comparison(self, relative: bool = True) -> Rule:
        rng = self.rng
        operator = rng.choice(("before", "after", "within_last", "within_next") if relative else ("before", "after"))
        if operator in ("within_last", "within_next"):
            return {operator: rng.choice(self.windows)}
        if relative and rng.random() < 0.6:
            return {operator: rng.choice(("now", f"now-{rng.choice(self.windows)}", f"now+{rng.choice(self.windows)}"))}
        return {operator: self.instant()}

    def names(self) -> Any:
        rng = self.rng
        draw = rng.random()
        if draw < 0.8:
            return rng.choice(EVENT_NAMES)
        return rng.sample(EVENT_NAMES, 2) if draw < 0.92 else "*"

    def where(self, against_trait: bool = False, depth: int = 0) -> Rule:
        rng = self.rng
        if depth < 2 and rng.random() < 0.12:
            kind = rng.choice(("all", "any", "not"))
            inner = self.where(against_trait, depth + 1)
            return {kind: inner if kind == "not" else [inner, self.where(against_trait, depth + 1)]}
        draw = rng.random()
        if self.rarely(0.12):
            return {
                "context.consent.marketing": rng.choice(
                    (True, False, {"exists": True}, {"as": "text", "equals": "true"})
                )
            }
        if self.rarely(0.12):
            return {"traits.plan": self.text_comparison_plain()}
        if self.rarely(0.15):  # several paths, all of which must pass
            return {"properties.amount": self.number_comparison(), "properties.path": {"starts_with": "/"}}
        if against_trait and self.rarely(0.2):
            operator = rng.choice(("greater_than", "at_least", "less_than", "at_most", "equals"))
            return {"properties.amount": {operator: {"trait": "age"}}}
        if against_trait and draw < 0.35:
            operator = rng.choice(("equals", "not_equals"))
            return {"properties.city": {"exists": True, operator: {"trait": "city"}}}
        if draw < 0.55:
            return {"properties.path": rng.choice(({"starts_with": "/pricing"}, {"equals": rng.choice(PATHS)}))}
        if draw < 0.9:
            return {"properties.amount": self.number_comparison()}
        return {"properties.city": self.text_comparison_plain()}

    def text_comparison_plain(self) -> Any:
        comparison = self.text_comparison(CITIES)
        if isinstance(comparison, dict) and any(isinstance(one, dict) for one in comparison.values()):
            return {"exists": True}
        return comparison

    def window(self, body: Rule, calendar: bool = True) -> None:
        rng = self.rng
        draw = rng.random()
        if draw < 0.62:
            body["within"] = rng.choice(self.windows)
        elif draw < 0.70:
            body["between"] = self.between()
        elif draw < 0.78 and calendar:
            body["calendar"] = {
                "unit": rng.choice(("day", "day", "week", "month", "quarter", "year")),
                "last": rng.choice((1, 1, 2, 7)),
                "current": rng.random() < 0.6,
                "time_zone": rng.choice(ZONES),
            }

    def between(self) -> Rule:
        rng = self.rng
        first, second = sorted((self.instant(), self.instant()), key=lambda text: instant_ms(text) or 0)
        between = {"from": first, "to": second}
        if instant_ms(first) == instant_ms(second):
            del between["to"]
            return between
        if rng.random() < 0.3:
            del between[rng.choice(("from", "to"))]
        if self.rarely(0.4):
            between["time_zone"] = rng.choice(ZONES)
            low, high = (instant_ms(between.get(each, ""), between["time_zone"]) for each in ("from", "to"))
            if low is not None and high is not None and low >= high:  # only one of the two told its zone
                del between["time_zone"]
        return between

    def performed(self) -> Rule:
        rng = self.rng
        body: Rule = {"event": self.names()}
        self.window(body)
        kind = rng.choices(
            ("default", "count", "sum", "average", "min", "max", "distinct", "first", "last"),
            (5, 10, 3, 2, 1.5, 1.5, 2, 1.5, 1.5),
        )[0]
        if kind in ("first", "last"):
            body.pop("within", None)
            body.pop("calendar", None)
            body[kind] = self.moment_comparison() if rng.random() < 0.9 else {"exists": rng.random() < 0.5}
        elif kind == "count":
            operator = rng.choice(("at_least", "at_least", "at_most", "exactly", "more_than", "less_than", "between"))
            number = rng.choice((0, 1, 2, 3))
            body["count"] = {operator: [number, number + 1] if operator == "between" else number}
            if self.rarely(0.2):
                body["count"] = {"at_least": number, "less_than": number + rng.choice((1, 2, 3))}
        elif kind != "default":
            operator = rng.choice(("at_least", "at_most", "more_than", "less_than", "exactly"))
            path = "properties.cart_id" if kind == "distinct" and rng.random() < 0.5 else "properties.amount"
            body[kind] = {"of": path, operator: rng.choice((0, 1, 2, 5, 10, 7.5))}
        if rng.random() < 0.4:
            body["where"] = self.where(against_trait=kind in ("default", "count"))
        if "within" in body and rng.random() < 0.12:
            body["grace"] = rng.choice(SHORT)
        return body

    def sequence(self) -> Rule:
        rng = self.rng
        by = rng.random() < 0.4
        steps: list[Rule] = [self.step()]
        for _ in range(rng.choices((1, 2, 3), (6, 3, 1))[0]):
            if rng.random() < 0.6:
                step = self.step()
                if rng.random() < 0.6:
                    step["within"] = rng.choice(self.windows)
                steps.append(step)
            elif rng.random() < 0.7:
                steps.append({"not": self.step(), "within": rng.choice(self.windows)})
            else:
                steps += [{"not": self.step()}, self.step()]
        body: Rule = {"steps": steps}
        if by:
            body["by"] = "properties.cart_id"
            if self.rarely(0.5):  # a step may know its value by another name
                one = rng.choice(steps)
                one.get("not", one)["by"] = rng.choice(("properties.amount", "properties.city", "properties.cart_id"))
        if rng.random() < 0.3:
            body["within"] = rng.choice(self.windows[2:])
        if rng.random() < 0.15:
            body["grace"] = rng.choice(SHORT)
        return body

    def step(self) -> Rule:
        step: Rule = {"event": self.rng.choice(EVENT_NAMES)}
        if self.rng.random() < 0.2:
            step["where"] = self.where()
        return step

    def score(self) -> Rule:
        rng = self.rng
        lines = []
        for _ in range(rng.choice((1, 2))):
            line: Rule = {"event": self.rng.choice(EVENT_NAMES), "weight": rng.choice((1, 2, 10, -3, 0.5))}
            if rng.random() < 0.2:
                line["where"] = self.where()
            lines.append(line)
        body: Rule = {"events": lines, "half_life": rng.choice(self.windows[2:])}
        if rng.random() < 0.5:
            body["within"] = rng.choice(self.windows[2:])
        body[rng.choice(("at_least", "at_least", "at_most", "less_than", "more_than"))] = rng.choice((0, 0.5, 1, 3, 10))
        return body

    def computed_trait(self, name: str) -> Rule:
        rng = self.rng
        function = rng.choice(
            [
                "count",
                "sum",
                "average",
                "min",
                "max",
                "distinct",
                "first",
                "last",
                "first_time",
                "last_time",
                "most_frequent",
                "unique",
                "preferred_hour",
                "preferred_channel",
            ]
        )
        body: Rule = {"function": function, "event": self.names()}
        self.window(body)
        if function in ("sum", "average", "min", "max"):
            body["of"] = "properties.amount"
        elif function in ("distinct", "first", "last", "most_frequent", "unique"):
            body["of"] = rng.choice(("properties.amount", "properties.cart_id", "properties.city"))
        if function == "unique" and rng.random() < 0.5:
            body["limit"] = rng.choice((1, 2))
        if function == "preferred_hour":
            body["time_zone"] = rng.choice(ZONES)
        if function == "preferred_channel":
            body["of"] = "properties.path"
        if rng.random() < 0.2:
            body["where"] = self.where()
        return {"computed": name, "compute": body}

    def computed_rule(self) -> Rule:
        name, function = self.rng.choice(self.computed)
        if function in ("first_time", "last_time") or self.rarely(0.1):
            return {name: self.moment_comparison()}
        if function in ("most_frequent", "first", "last", "preferred_channel"):
            return {name: self.rng.choice(({"exists": True}, {"equals": "c1"}, {"in": ["c2", 5, "Oslo", "/home"]}))}
        if function == "unique":
            return {name: self.rng.choice(({"contains": "c1"}, {"contains": 5}, {"exists": False}))}
        return {name: self.number_comparison()}
