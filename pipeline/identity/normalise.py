"""How a raw identifier becomes the one spelling under which it is known, and what is no identifier at all.

    normaliser  does
    none        trims, composes Unicode (NFC)
    lower       the same, then lower case
    email       the same, then demands local@domain; plus-tags stay unless the namespace strips them
    phone       E.164 with the namespace's default region; an extension is kept, because a switchboard is not a person
    digits      keeps the decimal digits only

Every normaliser is idempotent: what it gave, it gives again.
"""

import unicodedata
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import phonenumbers

NormaliserName = Literal["none", "lower", "email", "phone", "digits"]
NORMALISERS: tuple[str, ...] = get_args(NormaliserName)

MAX_VALUE_BYTES = 512

# Stripped at both ends besides white space: a byte order mark and the zero-width characters that come with copying.
_INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060"
_QUOTES = "\"'`\u2018\u2019\u201c\u201d\u00ab\u00bb\\"
_BRACKETS = "(){}<>"
_WRAPPERS = frozenset(_QUOTES + _BRACKETS)
_ZEROS = "0-+.: "
# The shortest subscriber numbers in the world, with their country code; emergency and service numbers are shorter.
_LEAST_E164_DIGITS = 7

_JUNK_WORDS = frozenset(
    {"", "null", "undefined", "none", "nan", "[object object]", "anonymous", "guest", "unknown", "-1"}
)


class Junk(NamedTuple):
    """Why a value is no identifier. `reason` is one of JUNK_REASONS."""

    reason: str


JUNK_REASONS: dict[str, str] = {
    "junk_value": "a placeholder that stands for nobody (null, undefined, anonymous, zeros, …)",
    "blocked_pattern": "matches a blocked pattern of the identity rules",
    "wrong_type": "an identifier must be a text or a whole number",
    "too_long": f"longer than {MAX_VALUE_BYTES} bytes",
    "control_characters": "contains control characters",
    "not_email": "not an e-mail address",
    "not_phone": "not a phone number that can be brought to E.164; a national form needs a default region",
    "no_digits": "contains no digits",
    "bad_namespace": "a namespace is 1 to 64 letters, digits, '_', '-' or '.'",
    "reserved_namespace": "account names accounts, not people; an event names its account by groupId",
}

JUNK_VALUE = Junk("junk_value")
BLOCKED_PATTERN = Junk("blocked_pattern")
WRONG_TYPE = Junk("wrong_type")
TOO_LONG = Junk("too_long")
CONTROL_CHARACTERS = Junk("control_characters")
NOT_EMAIL = Junk("not_email")
NOT_PHONE = Junk("not_phone")
NO_DIGITS = Junk("no_digits")
BAD_NAMESPACE = Junk("bad_namespace")
RESERVED_NAMESPACE = Junk("reserved_namespace")


def as_text(raw: object) -> str | Junk:
    """The text of a raw identifier: texts and whole numbers have one, everything else is junk."""
    if isinstance(raw, str):
        return raw
    if raw is None:
        return JUNK_VALUE
    if isinstance(raw, bool):
        return WRONG_TYPE
    if isinstance(raw, int):
        return str(raw)
    # Some producers know only floating numbers. Past 2**53 neighbours share one float, so two people would share an id.
    if isinstance(raw, float) and raw.is_integer() and abs(raw) < 2**53:
        return str(int(raw))
    return WRONG_TYPE


def trim(text: str) -> str | Junk:
    """Trim and compose a text, within the bounds that hold for every identifier."""
    if len(text) > 4 * MAX_VALUE_BYTES:
        return TOO_LONG
    if text.isascii():
        text = text.strip()
        if not text.isprintable():
            return CONTROL_CHARACTERS
        return text if len(text) <= MAX_VALUE_BYTES else TOO_LONG
    text = _strip(unicodedata.normalize("NFC", text))
    # Surrogates (Cs) have no UTF-8 form: a key could not be made of them.
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text):
        return CONTROL_CHARACTERS
    return text if len(text.encode()) <= MAX_VALUE_BYTES else TOO_LONG


def _strip(text: str) -> str:
    while True:
        stripped = text.strip().strip(_INVISIBLE)
        if stripped == text:
            return text
        text = stripped


def is_junk(text: str) -> bool:
    """Whether a trimmed text stands for nobody: bare, in quotes or in brackets, in any case."""
    if not text or text.lower() in _JUNK_WORDS or _all_zero(text):
        return True
    if text[0] not in _WRAPPERS and text[-1] not in _WRAPPERS:
        return False
    # Ends soon: a trimmed text is short, and each turn takes something away.
    bare, inner = text, _unwrap(text)
    while inner != bare:
        if not inner or inner.lower() in _JUNK_WORDS or _all_zero(inner):
            return True
        bare, inner = inner, _unwrap(inner)
    return False


def _unwrap(text: str) -> str:
    return _strip(text.strip(_QUOTES).strip(_BRACKETS))


def _all_zero(text: str) -> bool:
    # "+0" and "0.0" are zeros too, and so is the zero UUID, with or without hyphens.
    return text[0] in _ZEROS and "0" in text and not text.strip(_ZEROS)


def none(text: str, region: str | None) -> str | Junk:
    """As it is."""
    return text


def lower(text: str, region: str | None) -> str | Junk:
    """Lower case."""
    return unicodedata.normalize("NFC", text.lower())


def email(text: str, region: str | None) -> str | Junk:
    """A lower-case e-mail address."""
    lowered = unicodedata.normalize("NFC", text.lower())
    local, at, domain = lowered.rpartition("@")
    if not (local and at and domain) or lowered != "".join(lowered.split()):
        return NOT_EMAIL
    # A form that sends the word for an empty field as one half of an address names nobody either.
    return JUNK_VALUE if is_junk(local) and is_junk(domain) else lowered


def clean_id(raw: object) -> str | Junk:
    """A trimmed id that names a thing, not a person: held to the same bounds, with no rules of a namespace."""
    text = raw if type(raw) is str else as_text(raw)
    if isinstance(text, str):
        text = trim(text)
    return JUNK_VALUE if isinstance(text, str) and is_junk(text) else text


def without_plus_tag(address: str) -> str:
    """An address without its plus-tag: "ann+news@x.io" is "ann@x.io"; a local part that is all tag stays."""
    local, _, domain = address.rpartition("@")
    name = local.partition("+")[0]
    return f"{name}@{domain}" if name else address


def phone(text: str, region: str | None) -> str | Junk:
    """A phone number in E.164, an extension behind it as ";ext=12"."""
    number = _parse_phone(text, region)
    # An international number often loses its plus, in a spreadsheet or as a JSON number.
    if text.isdecimal():
        own_code = str(phonenumbers.country_code_for_region(region)) if region else ""
        # Where national numbers have a prefix, one without it that begins with the country's code is international.
        # Where they have none, as in Italy and Poland, many begin so: 390 311 8620 is a mobile of there.
        has_prefix = region is None or phonenumbers.ndd_prefix_for_region(region, True) is not None
        is_national = number is not None and phonenumbers.is_valid_number(number)
        if not is_national or (has_prefix and text.startswith(own_code)):
            international = _parse_phone("+" + text, None)
            if international and phonenumbers.is_valid_number(international):
                number = international
    # Possible, not valid: numbering plans grow faster than any library's copy of them.
    if number is None or not phonenumbers.is_possible_number(number):
        return NOT_PHONE
    formatted: str = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    if len(formatted) <= _LEAST_E164_DIGITS:
        return NOT_PHONE
    return f"{formatted};ext={number.extension}" if number.extension else formatted


def _parse_phone(text: str, region: str | None) -> Any:
    try:
        return phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None


def digits(text: str, region: str | None) -> str | Junk:
    """The decimal digits."""
    kept = "".join(str(unicodedata.decimal(character)) for character in text if character.isdecimal())
    return kept or NO_DIGITS


FUNCTIONS: dict[str, Callable[[str, str | None], str | Junk]] = {
    "none": none,
    "lower": lower,
    "email": email,
    "phone": phone,
    "digits": digits,
}
