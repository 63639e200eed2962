"""Random rules of the full grammar: those the simulation draws, about people and accounts, and texts that a form could
break."""

import random
from typing import Any

from pipeline.definitions.kinds import mistakes_in
from tests.simulation.accounts import AccountAuthor
from tests.simulation.definitions import Author, Rule

AWKWARD = (
    " a ",
    "",
    "a\nb",
    "a\r\nb",
    "\t",
    "“q”",
    '"',
    "<b>",
    "&amp;",
    "json:1",
    "[1]",
    "3",
    "true",
    "é漢🙂",
    "\x7f",
    "a\u2028b",
)


class _More(Author):
    """Adds what the simulation draws never or seldom: every shape a definition may have."""

    def rule(self, depth: int) -> Rule:
        rng = self.rng
        draw = rng.random()
        if draw < 0.05:
            return {
                "trait": {rng.choice(("plan", "a.b", "ké y")): self.any_comparison(), "city": self.any_comparison()}
            }
        if draw < 0.08:
            return {"consent": rng.choice(("a b", {"purpose": "x"}, {"purpose": "x", "is": "granted"}))}
        if draw < 0.10:
            return {"bucket": {"salt": rng.choice(("a", " b\n", "json:x")), "to": rng.choice((1, 50.5, 1e1))}}
        if draw < 0.13:
            return {"computed": {"orders": self.any_comparison(), "last_city": {"exists": False}}}
        if draw < 0.17 and depth < 3:
            return self.performed_rule()
        if draw < 0.20:
            return {
                "score": {"events": [{"event": ["A", "B"], "weight": -0.5}], "half_life": "1d12h", "between": [1, 2.5]}
            }
        return super().rule(depth)

    def performed_rule(self) -> Rule:
        rng = self.rng
        body: dict[str, Any] = {"event": rng.choice((["Page Viewed"], ["B", "A", "A"], "*", "a\tb", " x "))}
        body["where"] = rng.choice(
            (
                {},
                {"all": [], "any": [{}], "not": {}},
                {"properties.a": self.plain(), "context.b.c": self.plain(), "all": [{"traits.d": self.plain()}]},
                {"not": {"any": [{"properties.a": self.plain()}, {"all": [{"properties.b": 1}]}]}},
            )
        )
        body |= rng.choice(
            (
                {"count": {"at_least": 1, "at_most": 3}},
                {"sum": {"of": "properties.a", "more_than": 1.5, "less_than": 10}},
                {"calendar": {"unit": "quarter"}},
                {"calendar": {"unit": "day", "last": 3, "current": True, "time_zone": "Europe/Berlin"}},
                {"between": {"from": "2026-03-01", "time_zone": "Europe/Berlin"}},
                {"last": {"after": "now-30d", "exists": True}},
                {"within": "1w2d", "grace": "250ms", "count": {"between": [0, 2]}},
            )
        )
        return {"performed": body}

    def plain(self) -> Any:
        """A comparison without the clock and without other traits."""
        rng = self.rng
        text = rng.choice(AWKWARD)
        return rng.choice(
            (
                text,
                rng.choice((0, -1, 2.5, 1e22, 1234567890123456789, 3.0)),
                rng.random() < 0.5,
                {"equals": text},
                {"in": []},
                {"in": [""]},
                {"in": [text, "x"]},
                {"not_in": [text, 3, True, 2.5]},
                {"in": [1, 2.5]},
                {"contains": text, "not_contains": 3, "starts_with": "a", "as": "text"},
                {"between": ["a", "b"]},
                {"between": [1, 2.5], "as": "number"},
                {"not_equals": False, "exists": True},
                {"before": "2026-03-01T09:30:00+01:00"},
                {"regex": r"^\d+$", "regex_full": "a|b"},
            )
        )

    def any_comparison(self) -> Any:
        """Any comparison at all."""
        more = {"within_last": "1d12h", "within_next": "90s", "after": "now-1h30m"}
        return self.rng.choice((self.plain(), more, {"less_than": {"trait": "a.b"}, "at_most": 3}))


class _People(_More):
    pass


class _Accounts(_More, AccountAuthor):
    pass


def full_definitions(seed: int) -> list[dict[str, Any]]:
    """A few valid definitions of segments: of people, and of accounts."""
    rng = random.Random(seed)
    people = _People(rng, 1_700_000_000_000)
    written = people.write()
    written += _Accounts(rng, 1_700_000_000_000, people.segments or ["s0"]).write_more()
    found = [one for one in written if "segment" in one]
    for one in found:
        if rng.random() < 0.3:
            one |= {"description": rng.choice(AWKWARD), "tags": rng.choice(([], ["a", "b c"], ["", "[x"], ["a\nb"]))}
    # What is drawn here fits together nearly always; what does not is no definition.
    return [one for one in found if not mistakes_in("segment", one)]
