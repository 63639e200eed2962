"""The parameters of what can be asked, each described and bounded once."""

from pipeline.api.operations import Parameter
from pipeline.identity.normalise import MAX_VALUE_BYTES

MAX_IDENTIFIER = 600
_MAX_ACCOUNT = MAX_VALUE_BYTES

PROFILE = Parameter(
    "profile",
    "path",
    {"type": "string", "minLength": 1, "maxLength": MAX_IDENTIFIER},
    "NAMESPACE:VALUE of any identifier, or a profile_id; that of a profile that was merged leads on to its successor.",
    "email:ada@example.org",
)
SEGMENT = Parameter(
    "segment", "path", {"type": "string", "minLength": 1, "maxLength": 100}, "The name of a segment.", "repeat_buyers"
)
ACCOUNT = Parameter(
    "account",
    "path",
    {"type": "string", "minLength": 1, "maxLength": _MAX_ACCOUNT},
    "The name of an account.",
    "acme.example",
)
KIND = Parameter(
    "kind", "path", {"type": "string", "minLength": 1, "maxLength": 20}, "segment, destination, trait, …", "segment"
)
NAME = Parameter(
    "name", "path", {"type": "string", "minLength": 1, "maxLength": 100}, "The name of a definition.", "repeat_buyers"
)
WHICH = Parameter(
    "segment", "query", {"type": "string", "minLength": 1, "maxLength": 100}, "The name of a segment.",
    "repeat_buyers", required=True,
)  # fmt: skip
REQUEST = Parameter(
    "request", "path", {"type": "string", "minLength": 1, "maxLength": 40}, "The id of a request.",
    "20270115-4f1d0a9c3e",
)  # fmt: skip
WAIT = (
    Parameter(
        "wait_for",
        "query",
        {"type": "string", "maxLength": 300, "pattern": r"^.+:[0-9]{1,19}:[0-9]{1,19}$"},
        "TOPIC:PARTITION:OFFSET of a record: answer once its effect can be seen, for reading one's own writes.",
        "raw:0:1042",
    ),
    Parameter("timeout_ms", "query", {"type": "integer", "minimum": 1, "maximum": 10_000}, "How long to wait: 1,000."),
    Parameter(
        "Headwater-Position",
        "header",
        {"type": "string", "maxLength": 8_000, "pattern": r"^[^=;]+=[0-9.]+(;[^=;]+=[0-9.]+)*$"},
        "The header of an earlier answer: nothing older is answered, whichever process is asked.",
    ),
    Parameter(
        "If-None-Match",
        "header",
        {"type": "string", "maxLength": 2_000},
        "The ETag of an earlier answer: 304 if it would be the same.",
    ),
)
FIELDS = Parameter(
    "fields",
    "query",
    {"type": "string", "minLength": 1, "maxLength": 2_000},
    "Sections, or keys of sections, with commas between.",
    "traits.plan,segments",
)
EVENTS_LIMIT = Parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": 100}, "How many: 20.")
MEMBERS_LIMIT = Parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": 10_000}, "How many: 100.")
AFTER = Parameter("after", "query", {"type": "string", "maxLength": 100}, "`next` of the page before.")
OF = Parameter(
    "of",
    "query",
    {"type": "string", "minLength": 1, "maxLength": 2_100},
    "2 to 20 segments, with commas between.",
    "repeat_buyers,lapsed",
    required=True,
)
LAST_ID = Parameter(
    "Last-Event-ID", "header", {"type": "string", "maxLength": 4_000}, "The last id that was seen: go on behind it."
)
DRY_RUN = Parameter("dry_run", "query", {"type": "boolean"}, "Only tell what would change.")
TAKE_OVER = Parameter("take_over", "query", {"type": "boolean"}, "Also what a file owns.")
BEGINS = Parameter(
    "begins", "query", {"type": "string", "maxLength": _MAX_ACCOUNT}, "Only names that begin so.", "acme"
)
AFTER_NAME = Parameter("after", "query", {"type": "string", "maxLength": _MAX_ACCOUNT}, "`next` of the page before.")
ACCOUNTS_LIMIT = Parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": 1_000}, "How many: 100.")
DAYS = Parameter("days", "query", {"type": "integer", "minimum": 1, "maximum": 90}, "How many days back: 30.")
RANKED = (
    Parameter(
        "segment", "query", {"type": "string", "minLength": 1, "maxLength": 100}, "Only accounts in this segment.",
        "warm_accounts",
    ),
    Parameter("without", "query", {"type": "string", "minLength": 1, "maxLength": 100}, "None that are in this one."),
    Parameter(
        "trait", "query", {"type": "string", "minLength": 1, "maxLength": 200}, "Only by the value of this trait.",
        "plan",
    ),
    Parameter(
        "among", "query", {"type": "string", "maxLength": 1_000},
        "The values of `trait` that are meant, with commas between; `-`: it is missing.", "free,trial,-",
    ),
)  # fmt: skip
REASON = Parameter(
    "reason", "query", {"type": "string", "minLength": 1, "maxLength": 100}, "Only those with this reason.", "not_json"
)
LETTERS_LIMIT = Parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": 1_000}, "How many: 100.")
PARTITION = Parameter(
    "partition", "path", {"type": "integer", "minimum": 0, "maximum": 100_000}, "The partition of `dead-letters`.", 0
)
OFFSET = Parameter("offset", "path", {"type": "integer", "minimum": 0, "maximum": 10**17}, "Its offset.", 17)
ONE_SEGMENT = Parameter(
    "segment", "query", {"type": "string", "minLength": 1, "maxLength": 100}, "Only this one.", "repeat_buyers"
)
SEGMENTS_LIMIT = Parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": 100}, "How many: 20.")
GROWTH_DAYS = Parameter("days", "query", {"type": "integer", "minimum": 1, "maximum": 30}, "How many days back: 7.")
WAIT_IN_FORCE = Parameter(
    "wait_ms", "query", {"type": "integer", "minimum": 0, "maximum": 30_000},
    "Answer once it is in force, or after so long: `in_force` says which.",
)  # fmt: skip
OVER = Parameter(
    "over", "query", {"type": "integer", "minimum": 0, "maximum": 1_000_000_000},
    "Only if this version of what is sent is in force (0: none): else 412, and nothing is changed.", 3,
)  # fmt: skip
MESSAGE_ID = Parameter(
    "message_id",
    "query",
    {"type": "string", "minLength": 1, "maxLength": 300},
    "Tell where this message stands.",
    "m-1",
)
PATIENCE = Parameter(
    "patience_ms", "query", {"type": "integer", "minimum": 1, "maximum": 10_000},
    "How long the topics are read for what changed, and what was told: 400.",
)  # fmt: skip
EVENT_PARTITION = Parameter(
    "partition", "path", {"type": "integer", "minimum": 0, "maximum": 100_000}, "The partition of `events`.", 0
)
