"""What a connector is: a class that hands deliveries to one destination and says what became of each.

The whole contract:

- `deliver` gets 1 to `max_batch` deliveries and returns one `Outcome` for each, in the same order. It blocks; the
  deliver role calls it from up to `concurrency` threads at a time, never twice at once for one profile.
- Every delivery may come again with the same `delivery_id`, after a crash or an answer that never came. Pass the id on
  as an idempotency key, or write so that a repetition changes nothing.
- `delivered`: the destination has it for good. `retry`: perhaps later (the deliver role waits, counts, and gives up in
  the end). `rejected`: never, whatever one does: this very delivery is at fault.
- The action `profile_erased` asks to delete a person: everything kept under any of the `identifiers`, and under any of
  the `profile_ids` in the body. `delivered`: it is gone. A destination that cannot says `rejected`, and why: the
  receipt of the erasure then tells people to see to it themselves.
- An exception counts as `retry` for the whole batch; what the connector meant to say is better said by an outcome.
- Options are a pydantic model. A secret is always a `SecretReference`, read when the connector opens, never stored.
  When the file of one changes, the connector is closed and opened anew.
"""

import base64
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self
from urllib.parse import quote, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, model_validator

from pipeline.records import Delivery


class Outcome(NamedTuple):
    """What became of one delivery. `detail` is for people and ends in logs and dead letters: no secrets in it.

    `retry_after_ms`: the destination asked to be left alone for so long.
    """

    status: Literal["delivered", "retry", "rejected"]
    detail: str = ""
    retry_after_ms: int | None = None


LONGEST_RETRY_AFTER_MS = 86_400_000
"""Nobody is left alone for longer than a day."""
_SHORTEST_SECRET = 7
_STATUSES = frozenset({"delivered", "retry", "rejected"})
_DELIVERED = Outcome("delivered")


def delivered() -> Outcome:
    """The destination has it for good."""
    return _DELIVERED


def retry(detail: str, retry_after_ms: int | None = None) -> Outcome:
    """Not now: the destination, or the way to it, is at fault."""
    return Outcome("retry", detail, retry_after_ms)


def rejected(detail: str) -> Outcome:
    """Never: this delivery is at fault, and would be refused again."""
    return Outcome("rejected", detail)


def checked(outcomes: Sequence[Any], count: int) -> list[Outcome]:
    """What a connector gave for so many deliveries; retry for all of them where these are no outcomes of theirs: a
    connector is others' code, and what it makes up must not reach further than its own destination."""
    if len(outcomes) != count:
        return [retry(f"the connector gave {len(outcomes)} outcomes for {count} deliveries")] * count
    for one in outcomes:
        if not (
            isinstance(one, Outcome)
            and one.status in _STATUSES
            and isinstance(one.detail, str)
            and (one.retry_after_ms is None or type(one.retry_after_ms) is int)
        ):
            return [retry(f"the connector gave something that is no outcome, of type {type(one).__name__}")] * count
    return [
        one
        if one.retry_after_ms is None
        else one._replace(retry_after_ms=min(one.retry_after_ms, LONGEST_RETRY_AFTER_MS))
        for one in outcomes
    ]


class Options(BaseModel):
    """The options of a connector, as they stand in a destination's definition. Unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


_OURS = re.compile(r"HEADWATER_(SECRET|CONFIG|.*__.*)", re.I)
# What a process was started with stands there too, its variables first of all.
_PROCESSES = Path("/proc")
_withheld: set[Path] = set()


def withhold(*places: Path) -> None:
    """Let no definition read a secret from these files and folders, or write there, in this process."""
    _withheld.update(place.resolve() for place in places)


def is_withheld(file: str | Path) -> bool:
    """Whether a place is Headwater's own: definitions neither read it nor write there."""
    try:
        whole = Path(file).resolve()
    except (OSError, RuntimeError, ValueError):
        return False  # no place at all, which is said where it is read
    return not {_PROCESSES, *_withheld}.isdisjoint((whole, *whole.parents))


class SecretReference(Options):
    """Where a secret is found: `{env: NAME}` or `{file: path}`. The secret itself never stands in a definition.

    Who may write definitions chooses where such a secret goes. So Headwater's own are none: not the variables of its
    settings, nor what `/proc` says of them, nor the settings file, and nothing in the state folder.
    """

    env: str | None = None
    file: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _no_literal(cls, value: Any) -> Any:
        if isinstance(value, str):
            # The value is not repeated: it may be the secret itself.
            raise ValueError("a secret never stands in a definition: write {env: NAME} or {file: path}")
        return value

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.env is None) == (self.file is None):
            raise ValueError("give either `env` or `file`")
        if self.env is not None and _OURS.fullmatch(self.env):
            raise ValueError(f"{self.env} is a setting of Headwater, and no secret to be sent anywhere")
        return self

    def read(self) -> str:
        """The secret, without surrounding white space. Raises ValueError, naming the place, when it is not there."""
        if self.env is not None:
            text = os.environ.get(self.env, "").strip()
            place = f"the environment variable {self.env}"
        else:
            assert self.file is not None
            place = f"the file {self.file}"
            if is_withheld(self.file):
                raise ValueError(f"{place} is Headwater's own, and no secret to be sent anywhere")
            try:
                text = Path(self.file).read_text(encoding="utf-8").strip()
            except OSError as error:
                raise ValueError(f"the secret is not in {place}: {error.strerror}") from None
            except ValueError:
                raise ValueError(f"the secret is not in {place}: it is no text in UTF-8, or no place at all") from None
        if not text:
            raise ValueError(f"the secret is not in {place}: it is empty or not set")
        return text


class SecretFiles:
    """What stood in the files that the secrets of these options are read from. Make it before they are read: what
    changes meanwhile is noticed."""

    def __init__(self, options: Any) -> None:
        files = [reference.file for reference in _references(options) if reference.file is not None]
        self._held = {file: _digest(file) for file in files}

    def have_changed(self) -> bool:
        """Whether something else stands there by now. One that is empty or gone is on its way to be written anew."""
        found = {file: _digest(file) for file in self._held}
        return found != self._held and None not in found.values()


class Unsaid:
    """Takes the secrets of these options out of what a destination says: some repeat what they were sent, as in
    "Invalid API key: …", and what they say stands in logs and topics."""

    def __init__(self, options: Any) -> None:
        found: set[str] = set()
        for reference in _references(options):
            with suppress(ValueError):
                found.update(_forms(reference.read()))
        self._found = sorted(found, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for each in self._found:
            text = text.replace(each, "***")
        for each in self._found:
            # What is told of an answer is cut somewhere, and perhaps in the middle of a secret. Of a short piece nobody
            # can say whose it is.
            for length in range(min(len(each) - 1, len(text)), max(_SHORTEST_SECRET, len(each) // 2) - 1, -1):
                if text.endswith(each[:length]):
                    return f"{text[:-length]}***"
        return text


def _forms(secret: str) -> Iterator[str]:
    """How a secret may be repeated: whole, without its "Bearer", in Basic authentication or out of it, as the password
    in a url, as what stands behind the host; each of these as JSON and addresses have it."""
    plain = [secret, *secret.split()]
    with suppress(ValueError):
        plain.append(unquote(urlsplit(secret).password or ""))
    with suppress(ValueError):
        address = urlsplit(secret)
        if address.scheme in ("http", "https"):
            plain.append(address.path.strip("/"))
    with suppress(ValueError):
        kind, _, coded = secret.partition(" ")
        user_and_password = base64.b64decode(coded, validate=True).decode() if kind.lower() == "basic" else ""
        plain += [user_and_password, user_and_password.partition(":")[2]]
    forms = [base64.b64encode(f"{secret}:".encode()).decode()]
    for each in plain:
        forms += [each, json.dumps(each)[1:-1], each.replace("/", r"\/"), quote(each, safe="")]
    # Less is no secret, and would take letters out of words.
    yield from (form for form in forms if len(form) >= _SHORTEST_SECRET)


def _references(value: Any) -> Iterator[SecretReference]:
    if isinstance(value, SecretReference):
        yield value
    elif isinstance(value, BaseModel):
        yield from _references(vars(value))
    elif isinstance(value, Mapping):
        yield from _references(list(value.values()))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _references(inner)


def _digest(file: str) -> bytes | None:
    try:
        held = Path(file).read_bytes().strip()
    except (OSError, ValueError):
        return None
    return blake2b(held).digest() if held else None


class Connector:
    """The base of all connectors. A kind is a subclass; an instance serves one destination.

    Class attributes: `kind` as definitions name it; `mode` and `concurrency` where a definition names none; `max_batch`
    that or less, as a definition says; `keeps_order` says that a batch may hold several deliveries of one profile,
    because `deliver` goes through it in order and after a failure returns `retry` for that profile's later ones.
    """

    kind: ClassVar[str]
    mode: ClassVar[Literal["audience", "trigger"]] = "trigger"
    max_batch: ClassVar[int] = 1
    concurrency: ClassVar[int] = 8
    keeps_order: ClassVar[bool] = False
    options_model: ClassVar[type[Options]] = Options

    def __init__(self, destination: str, options: Any) -> None:
        """Open the destination named `destination`; `options` is an instance of `options_model`.

        Raises ValueError, saying what to do, when the set-up cannot work (a secret that is not there)."""
        self.destination = destination

    @classmethod
    def takes_at_once(cls, options: Any) -> int:
        """`max_batch`, for a kind where it depends on the options."""
        return cls.max_batch

    def deliver(self, deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        """Hand over 1 to `max_batch` deliveries; one outcome each, in the same order."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of connections and files. No `deliver` is under way then."""
