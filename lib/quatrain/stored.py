"""Base of the values that are stored as JSON for a long time, and the JSON form of references in them.

Values that another version has stored must open: unknown keys are ignored, absent ones have defaults.
"""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer

from quatrain.json_values import JsonObject
from quatrain.refs import ModelRef, ObjectRef, TableRef


class Stored(BaseModel):
    """A frozen value with finite numbers; the string below a field is its description."""

    model_config = ConfigDict(
        extra="ignore", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True, arbitrary_types_allowed=True
    )

    def to_json(self) -> JsonObject:
        """Return the JSON form."""
        return self.model_dump(mode="json")


def _model(value: Any) -> Any:
    return ModelRef.from_json(value) if isinstance(value, dict) else value


def _object(value: Any) -> Any:
    return ObjectRef.from_json(value) if isinstance(value, dict) else value


def _table(value: Any) -> Any:
    return TableRef.from_json(value) if isinstance(value, dict) else value


# Without it pydantic would look for the recursive type in the serializer's own annotation.
_JSON = dict[str, object]

StoredModel = Annotated[ModelRef, BeforeValidator(_model), PlainSerializer(ModelRef.to_json, return_type=_JSON)]
StoredObject = Annotated[ObjectRef, BeforeValidator(_object), PlainSerializer(ObjectRef.to_json, return_type=_JSON)]
StoredTable = Annotated[TableRef, BeforeValidator(_table), PlainSerializer(TableRef.to_json, return_type=_JSON)]
