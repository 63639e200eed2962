"""Which user agents are known robots: the patterns that `crawler-user-agents` keeps, in an engine without
backtracking, because who calls chooses the text.

HTTP libraries are in that list too. They are left out: okhttp is every Android app, and a server's SDK is no robot.
"""

from collections.abc import Callable
from functools import lru_cache

MAX_USER_AGENT = 512
_REMEMBERED = 10_000


def known_bots() -> Callable[[str], bool]:
    """Tells whether a user agent (its first MAX_USER_AGENT characters) is a known robot's."""
    import re2
    from crawleruseragents import CRAWLER_USER_AGENTS_DATA

    options = re2.Options()
    options.log_errors = False
    options.max_mem = 64 << 20
    options.never_capture = True
    patterns = re2.Set.SearchSet(options)
    for entry in CRAWLER_USER_AGENTS_DATA:
        if "http-library" not in entry.get("tags", ()):
            patterns.Add(entry["pattern"])
    patterns.Compile()

    @lru_cache(maxsize=_REMEMBERED)
    def is_bot(user_agent: str) -> bool:
        return bool(patterns.Match(user_agent))

    return lambda user_agent: is_bot(user_agent[:MAX_USER_AGENT])
