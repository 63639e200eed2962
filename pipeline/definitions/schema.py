"""The JSON Schema of a file of definitions, for editors: what stands where, and what a key is called. What only a look
at the whole of a definition tells, `headwater check` does."""

from typing import Any

from pydantic.json_schema import models_json_schema

from pipeline.definitions.kinds import KINDS_BY_KEY, model_of

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """The schema of one definition of any kind: its first key tells which."""
    models = {key: model_of(kind) for key, kind in KINDS_BY_KEY.items()}
    found, shared = models_json_schema([(model, "validation") for model in models.values()], by_alias=True)
    kinds = {key: found[model, "validation"] for key, model in models.items()}
    # The identity rules have no name, and stand below their key.
    kinds["identity"] = {"properties": {"identity": kinds["identity"]}, "additionalProperties": False}
    return {
        "$schema": DIALECT,
        "title": "A definition of Headwater",
        "type": "object",
        "anyOf": [{"required": [key]} for key in kinds],
        "allOf": [{"if": {"required": [key]}, "then": schema} for key, schema in kinds.items()],
        "$defs": shared["$defs"],
    }
