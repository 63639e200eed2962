"""Computed traits as people write them:

computed: orders_90d
compute: {function: count, event: Order Completed, within: 90d}
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, GetJsonSchemaHandler, model_validator

from pipeline.definitions.comparisons import EventPath, Model, Name, TimeZone, Windowed, without_traits
from pipeline.segments import rules

Function = Literal[
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
    "prediction",
]
_WITHOUT_PATH = frozenset(("count", "first_time", "last_time", "preferred_hour", "prediction"))
SCORE = "Score"
"""The name of the events by which models tell their scores."""
_UNIQUE = 100


class Compute(Windowed):
    """What is computed, over which events."""

    function: Function
    of: EventPath | None = None
    limit: Annotated[int, Field(ge=1, le=1_000)] | None = None
    time_zone: TimeZone | None = None
    model: Annotated[str, Field(min_length=1, max_length=200)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_a_model(cls, value: Any) -> Any:
        if not isinstance(value, dict) or value.get("function") != "prediction":
            return value
        others = sorted(value.keys() - {"function", "model"})
        if others or not isinstance(value.get("model"), str):
            raise ValueError("a prediction has a `model` and nothing else: it is the newest valid score of that model")
        return {**value, "event": SCORE, "where": {"properties.model": {"equals": value["model"]}}}

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> Any:
        schema = handler.resolve_ref_schema(handler(core_schema))
        schema["required"].remove("event")
        a_prediction = {"properties": {"function": {"const": "prediction"}}, "required": ["model"]}
        schema["anyOf"] = [{"required": ["event"]}, a_prediction]
        return schema

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.function in _WITHOUT_PATH and self.of is not None:
            raise ValueError(f"{self.function} has no `of`")
        if self.function not in _WITHOUT_PATH and self.function != "preferred_channel" and self.of is None:
            raise ValueError(f"{self.function} needs `of`: the path of the property, like properties.total")
        if self.model is not None and self.function != "prediction":
            raise ValueError("only a prediction has a model")
        if self.limit is not None and self.function != "unique":
            raise ValueError("only unique has a limit")
        if self.time_zone is not None and self.function != "preferred_hour":
            raise ValueError("only preferred_hour has a time_zone; a calendar window has its own")
        without_traits(self.selection().where, "a computed trait")
        return self

    def measure(self) -> rules.Measure:
        """The measure as the room takes it."""
        path = self.of
        function: str = self.function
        if function == "preferred_channel":
            function, path = "most_frequent", path or "context.channel"
        return rules.Measure(
            self.selection(),
            self.window(),
            function,
            tuple(path.split(".")) if path else (),
            (self.limit or _UNIQUE) if function == "unique" else 0,
            (self.time_zone or "UTC") if function == "preferred_hour" else "",
        )


class TraitDefinition(Model):
    """A computed trait."""

    computed: Name
    description: str = Field(default="", max_length=2_000)
    tags: list[str] = Field(default=[], max_length=100)
    entity: Literal["person"] = "person"
    compute: Compute

    def compiled(self, version: int = 1) -> rules.ComputedTrait:
        """The definition as the room takes it."""
        return rules.ComputedTrait(self.computed, self.compute.measure(), version)


def computed_trait(body: dict[str, Any], version: int = 1) -> rules.ComputedTrait:
    """A valid definition as the room takes it."""
    return TraitDefinition.model_validate(body).compiled(version)
