"""What all models share: strict keys, safe names, numbers, and mappings whose keys another model fixes."""

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    StringConstraints,
    create_model,
)
from pydantic.json_schema import GetJsonSchemaHandler, JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from distalign.config.attributes import ATTRIBUTES

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$"
SUM_TOLERANCE = 1e-6


class Model(BaseModel):
    """Base of all: unknown keys are errors, instances are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_name=True, validate_by_alias=True)


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("should be a number")
    return value


_number = BeforeValidator(_no_boolean)  # pydantic would read `true` as 1
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Count = Annotated[int, Field(ge=1), _number]
Seed = Annotated[int, Field(ge=0, lt=2**63), _number]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), _number]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False), _number]
Share = Annotated[float, Field(ge=0, le=1), _number]
Number = Annotated[float, Field(allow_inf_nan=False), _number]


class Keys:
    """Annotation for a dictionary whose keys and values a model checks, each with its own path in errors.

    The dictionary holds the keys that were set, in the order of the model.
    """

    def __init__(self, model: type[Model], exclude_none: bool = False) -> None:
        self.model = model
        self.exclude_none = exclude_none

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            self.dump,
            handler.generate_schema(self.model),
            serialization=core_schema.plain_serializer_function_ser_schema(dict),
        )

    def dump(self, checked: Model) -> dict[str, Any]:
        """The checked model as a dictionary."""
        return checked.model_dump(exclude_unset=True, exclude_none=self.exclude_none, by_alias=True)


class Distribution(Keys):
    """Annotation for a target distribution: `uniform`, or shares of classes that sum to 1; classes left out get 0."""

    def __init__(self, attribute: str) -> None:
        self.classes = ATTRIBUTES[attribute]
        shares: Any = {name: (Share, Field(0.0, description=f"Share of {name}.")) for name in self.classes}
        doc = f"Shares of the classes of {attribute}: they sum to 1, classes left out get 0."
        super().__init__(create_model(f"{attribute.capitalize()}Shares", __base__=Model, __doc__=doc, **shares))

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(
            self.expand, super().__get_pydantic_core_schema__(source, handler)
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"const": "uniform"}, handler(schema)]}

    def expand(self, value: Any) -> Any:
        """`uniform` in full; anything else as it is, for the model to check."""
        if value == "uniform":
            return {name: 1 / len(self.classes) for name in self.classes}
        if not isinstance(value, Mapping):
            raise ValueError(f"should be 'uniform' or shares of {', '.join(self.classes)}")
        return value

    def dump(self, checked: Model) -> dict[str, float]:
        """Every class with its share, in class order."""
        shares = checked.model_dump()
        if abs(sum(shares.values()) - 1) > SUM_TOLERANCE:
            raise ValueError(f"the shares sum to {sum(shares.values()):.6g}, not to 1")
        return shares


def by_attribute(name: str, doc: str, value: Callable[[str], Any]) -> Keys:
    """Annotation for a mapping from attributes to `value(attribute)`, in the order of ATTRIBUTES."""
    return by_name(ATTRIBUTES, name, doc, value)


def by_name(names: Iterable[str], name: str, doc: str, value: Callable[[str], Any]) -> Keys:
    """Annotation for a mapping from some of `names` to `value(name)`, in their order."""
    fields: Any = {key: (value(key) | None, Field(None, description=f"For {key}.")) for key in names}
    return Keys(create_model(name, __base__=Model, __doc__=doc, **fields), exclude_none=True)


def partial(model: type[Model], name: str, doc: str, **more: Any) -> Keys:
    """Annotation for a mapping that sets some keys of a model, and `more` (name -> (type, field)): an override."""
    return Keys(_partial_model(model, name, doc, **more))


def _partial_model(model: type[Model], name: str, doc: str, **more: Any) -> type[Model]:
    fields: dict[str, Any] = dict(more)
    for key, field in model.model_fields.items():
        annotation: Any = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Model):
            annotation = Annotated[
                dict[str, Any], Keys(_partial_model(annotation, f"{name}{key.capitalize()}", annotation.__doc__ or ""))
            ]
        for constraint in field.metadata:
            annotation = Annotated[annotation, constraint]
        fields[key] = (annotation | None, Field(None, description=field.description))
    return create_model(name, __base__=Model, __doc__=doc, **fields)
