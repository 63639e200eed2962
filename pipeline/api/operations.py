"""What can be asked, declared once: the routes, the check of what was sent, and the OpenAPI document come from here."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote_to_bytes

from starlette.requests import Request
from starlette.responses import Response

from pipeline.api import problems
from pipeline.api.access import Caller
from pipeline.api.problems import Problem

Json = dict[str, Any]
_ALWAYS = (400, 401, 403, 414, 429, 500, 503)
_TEXTS = ("application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml", "text/plain", "application/json")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter. `schema` is JSON Schema: a string (with maxLength, pattern, enum), an integer with its bounds, or
    a boolean."""

    name: str
    where: Literal["path", "query", "header"]
    schema: Json
    description: str
    example: Any = None
    required: bool = False

    def read(self, text: str) -> Any:
        """The value a text stands for. Raises Problem 400."""
        schema = self.schema
        if schema["type"] == "integer":
            if len(text) <= 18 and text.isascii() and text.isdigit():
                number = int(text)
                if schema["minimum"] <= number <= schema["maximum"]:
                    return number
            raise Problem(400, f"{self.name} is a whole number from {schema['minimum']} to {schema['maximum']}.")
        if schema["type"] == "boolean":
            if text in ("true", "false"):
                return text == "true"
            raise Problem(400, f"{self.name} is true or false.")
        if not schema.get("minLength", 0) <= len(text) <= schema["maxLength"]:
            least, most = schema.get("minLength", 0), schema["maxLength"]
            raise Problem(400, f"{self.name} has {least} to {most} characters.")
        return text

    def document(self) -> Json:
        """As OpenAPI has it."""
        found: Json = {
            "name": self.name,
            "in": self.where,
            "required": self.required or self.where == "path",
            "description": self.description,
            "schema": self.schema,
        }
        return found if self.example is None else found | {"example": self.example}


@dataclass(slots=True)
class Call:
    """One request, checked: who asks, and the values of the parameters (those left out are None).

    For the audit a handler tells whom it found (`profile_id`), or whom a body is about (`subject`).
    """

    caller: Caller
    values: dict[str, Any]
    request: Request
    body: bytes = b""
    profile_id: str = ""
    subject: str = ""


Handler = Callable[[Call], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that can be asked. `scope` None: nobody is asked who they are."""

    method: Literal["GET", "POST"]
    path: str
    name: str
    summary: str
    scope: str | None
    handler: Handler
    parameters: tuple[Parameter, ...] = ()
    body: Mapping[str, Json] = field(default_factory=dict)
    returns: Mapping[str, Json] = field(default_factory=dict)
    fails: tuple[int, ...] = ()

    @property
    def waits(self) -> bool:
        """Whether the answer comes from the tables: it can be waited for, and has a tag."""
        return any(one.name == "wait_for" for one in self.parameters)

    def check_type(self, request: Request) -> None:
        """Raises Problem 415 if a body says that it is something else; one that says nothing is taken."""
        said = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        taken = _TEXTS if "application/yaml" in self.body else tuple(self.body)
        if said and said not in taken:
            raise Problem(415, f"Send Content-Type: {taken[0]}.")

    def values(self, request: Request) -> dict[str, Any]:
        """The parameters' values. Raises Problem 400."""
        found = {}
        _text("The query", request.scope["query_string"])
        queries = request.query_params
        for one in self.parameters:
            text = (
                _text(one.name, request.path_params[one.name].encode("latin-1", "replace"))
                if one.where == "path"
                else queries.get(one.name)
                if one.where == "query"
                else request.headers.get(one.name)
            )
            if text is None and one.required:
                raise Problem(400, f"{one.name} is missing.")
            found[one.name] = None if text is None else one.read(text)
        if len(queries) != len(queries.multi_items()):
            raise Problem(400, "A parameter is given twice; each is given once, some take several with commas between.")
        unknown = set(queries) - {one.name for one in self.parameters if one.where == "query"}
        if unknown:
            known = ", ".join(one.name for one in self.parameters if one.where == "query") or "none"
            raise Problem(400, f"Unknown parameters; known here: {known}.")
        return found

    def document(self) -> Json:
        """As OpenAPI has it."""
        found: Json = {
            "operationId": self.name,
            "summary": self.summary,
            "parameters": [one.document() for one in self.parameters],
            "responses": {"200": {"description": "OK", "content": dict(self.returns)}},
        }
        if self.body:
            found["requestBody"] = {"required": True, "content": dict(self.body)}
        fails = self.fails if self.scope is None else (*_ALWAYS, *self.fails)
        if self.body:
            fails = (*fails, 413, 415, 422)
        if self.waits:
            fails = (*fails, 409)
            found["responses"]["304"] = {"description": "What the caller has is still good"}
        for status in sorted(set(fails)):
            content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
            found["responses"][str(status)] = {"description": problems.title(status), "content": content}
        if self.scope is not None:
            found["security"] = [{"token": []}]
            found["description"] = f"Needs the scope `{self.scope}`."
        return found


def _text(what: str, sent: bytes) -> str:
    """What was sent percent-encoded. Raises Problem 400: what is no text would be somebody else's name once it is made
    one."""
    try:
        return unquote_to_bytes(sent).decode()
    except UnicodeDecodeError:
        raise Problem(400, f"{what} is not UTF-8.") from None


def unquoted(text: str) -> str:
    """A part of a path as it was sent (its bytes, as latin-1) as a text."""
    return unquote_to_bytes(text.encode("latin-1", "replace")).decode("utf-8", "replace")


def openapi(operations: tuple[Operation, ...], schemas: Json, version: str) -> Json:
    """The OpenAPI document of these operations."""
    paths: Json = {}
    for one in operations:
        paths.setdefault(one.path, {})[one.method.lower()] = one.document()
    return {
        "openapi": "3.1.0",
        "info": {"title": "Headwater", "version": version, "description": "Profiles, segments and their changes."},
        "paths": paths,
        "components": {
            "schemas": {"Problem": problems.SCHEMA, **schemas},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }
