"""The words for what can be chosen in the builder: (what the form holds, what people read)."""

Options = tuple[tuple[str, str], ...]

COMMON: Options = (
    ("equals", "is"),
    ("not_equals", "is not"),
    ("contains", "contains"),
    ("not_contains", "does not contain"),
    ("starts_with", "starts with"),
    ("ends_with", "ends with"),
    ("in", "is one of"),
    ("not_in", "is none of"),
    ("at_least", "is at least"),
    ("at_most", "is at most"),
    ("greater_than", "is more than"),
    ("less_than", "is less than"),
    ("between", "is between"),
    ("exists", "is there / missing"),
    ("regex", "matches in part (pattern)"),
    ("regex_full", "matches (pattern)"),
    ("before", "is before (time)"),
    ("after", "is after (time)"),
)
CLOCK: Options = (("within_last", "is within the last"), ("within_next", "is within the next"))
NUMBERS: Options = (
    ("at_least", "at least"),
    ("at_most", "at most"),
    ("exactly", "exactly"),
    ("more_than", "more than"),
    ("less_than", "less than"),
    ("between", "between"),
)
TIMES: Options = (*CLOCK, ("before", "is before"), ("after", "is after"), ("exists", "is there / missing"))
TYPES: Options = (("text", "text"), ("number", "number"), ("boolean", "yes or no"))
AGAINST = ("equals", "not_equals", "greater_than", "at_least", "less_than", "at_most")
RESULTS: Options = (
    ("", "at least once"),
    ("count", "so many times"),
    ("sum", "with a sum"),
    ("average", "with an average"),
    ("min", "with a smallest value"),
    ("max", "with a largest value"),
    ("distinct", "with so many different values"),
    ("first", "the first time"),
    ("last", "the last time"),
)
WINDOWS: Options = (
    ("", "at any time"),
    ("within", "in the last"),
    ("between", "between two dates"),
    ("calendar", "in calendar units"),
)
UNITS: Options = tuple((unit, unit) for unit in ("day", "week", "month", "quarter", "year"))
YES_NO: Options = (("true", "yes"), ("false", "no"))

# In each of the following the empty text is what a definition leaves out: the usual.
THIS_OR_WHOLE: Options = (("", "this one among them"), ("true", "this one among them"), ("false", "whole ones before"))
HOW_MANY: Options = (
    ("", "at least one person"),
    ("any", "at least one person"),
    ("count", "so many people"),
    ("none", "no person"),
    ("all", "every person"),
)


def without_twin(options: Options, usual: str, value: str) -> Options:
    """Of two options that say the same, `usual` and the empty one, only that which is chosen."""
    return tuple(one for one in options if one[0] != ("" if value == usual else usual))
