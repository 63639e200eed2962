"""The kinds of definitions, the key each is known by in a file, and the model that validates it."""

from collections.abc import Iterator
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from pipeline.definitions.branches import told_once
from pipeline.definitions.keys import instead
from pipeline.records.definitions import Kind

KINDS_BY_KEY: dict[str, Kind] = {
    "segment": "segment",
    "computed": "trait",
    "identity": "identity",
    "contract": "contract",
    "cleaning": "cleaning",
    "source": "source",
    "reference": "reference",
    "destination": "destination",
    "accounts": "accounts",
    "alert": "alert",
    "consent": "consent",
}
THE_IDENTITY_RULES = "rules"
"""There is one set of identity rules; this is its name."""

# Modules are imported when a definition of the kind is met: a command that needs one kind starts without the others.
_MODELS: dict[Kind, str] = {
    "segment": "pipeline.definitions.segments:SegmentDefinition",
    "trait": "pipeline.definitions.traits:TraitDefinition",
    "identity": "pipeline.definitions.identity:IdentityDefinition",
    "cleaning": "pipeline.definitions.cleaning:CleaningDefinition",
    "contract": "pipeline.definitions.contracts:ContractDefinition",
    "reference": "pipeline.definitions.cleaning:ReferenceDefinition",
    "source": "pipeline.definitions.sources:SourceDefinition",
    "destination": "pipeline.definitions.destinations:DestinationDefinition",
    "accounts": "pipeline.definitions.accounts:AccountsDefinition",
    "alert": "pipeline.definitions.accounts:AlertDefinition",
    "consent": "pipeline.definitions.consent:ConsentDefinition",
}


class Mistake(NamedTuple):
    """What is wrong with a document, and where: steps into it, among them some that only the validator knows."""

    location: tuple[int | str, ...]
    what: str


@cache
def model_of(kind: Kind) -> type[BaseModel]:
    """What validates a kind: for identity rules what stands below the key, else the whole document."""
    module, _, name = _MODELS[kind].partition(":")
    model: Any = getattr(import_module(module), name)
    assert isinstance(model, type) and issubclass(model, BaseModel)
    return model


def name_in(kind: Kind, document: dict[str, Any]) -> str:
    """The name a valid document gives to what it defines."""
    if kind == "identity":
        return THE_IDENTITY_RULES
    [name] = (document[key] for key, known in KINDS_BY_KEY.items() if known == kind)
    return str(name)


def body_of(kind: Kind, document: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a valid document: what only this place may know stands in it."""
    if kind != "destination":
        return document
    from pipeline.definitions.destinations import with_mode

    return with_mode(document)


def mistakes_in(kind: Kind, document: dict[str, Any]) -> list[Mistake]:
    """Everything that is wrong with a document of a kind."""
    value: Any = document
    prefix: tuple[int | str, ...] = ()
    if kind == "identity":
        # The rules stand below the key, for they have no name.
        others = [key for key in document if key != "identity"]
        if others:
            return [Mistake((key,), f"there is no key `{key}` here; rules stand below `identity:`") for key in others]
        value, prefix = document["identity"] or {}, ("identity",)
    try:
        model_of(kind).model_validate(value)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        spoken = {detail["loc"]: _spoken(model_of(kind), detail) for detail in details}
        return [Mistake((*prefix, *location), what or spoken[location]) for location, what in told_once(details, value)]
    blank = [Mistake((*prefix, *path), _NOTHING.format(path[-1])) for path in _said_without_value(kind, value)]
    return blank if kind != "contract" else blank + _unheard(value)


# A blank `within:` would mean ever, a blank `where:` any event, a blank `segments:` all of them.
_NOTHING = "`{}` has no value: write one, or leave it out"
_WITHOUT_NULL = ("segment", "trait")


def _said_without_value(kind: Kind, value: Any) -> list[tuple[int | str, ...]]:
    """Keys that are there without a value, where that would mean the most there is. Only what is written now is held to
    it: what was applied once can be read for ever. Inside of other kinds a null may be somebody's own value."""
    if kind in _WITHOUT_NULL:
        return list(_nulls(value, ()))
    return [(key,) for key, inner in value.items() if inner is None]


def _unheard(contract: dict[str, Any]) -> list[Mistake]:
    from pipeline.definitions.contracts import unheard

    return [Mistake(("events", *path), what) for path, what in unheard(contract["events"])]


def _nulls(value: Any, path: tuple[int | str, ...]) -> Iterator[tuple[int | str, ...]]:
    if value is None:
        yield path
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _nulls(inner, (*path, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _nulls(inner, (*path, number))


def _spoken(model: type[BaseModel], detail: Any) -> str:
    what: str = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        return f"there is no key `{detail['loc'][-1]}` here{instead(detail['loc'], model)}"
    if detail["type"] == "missing":
        return f"the key `{detail['loc'][-1]}` is missing"
    return what
