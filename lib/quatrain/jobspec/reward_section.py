"""The reward section by content: what a reward service needs to score, as it is stored with a job and sent in a call.

Submission makes it from a job's `reward` section and replaces names by digests. The owner completes it with what the
job has trained and measured. The reward service scores by it: (weighted sum of the sources - offset) * scale, then
clipped.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from quatrain.code_folder import is_folder
from quatrain.digests import canonical_json, parse_json
from quatrain.errors import FieldViolation, InvalidInput
from quatrain.json_values import JsonObject
from quatrain.refs import ModelRef

DEFAULT_TIMEOUT_SECONDS = 60.0

Required = Annotated[str, Field(min_length=1)]
"""A text that is there."""


def _entries(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class _Part(BaseModel):
    """Base of all parts: frozen, strict, no NaN or infinity; null means the default, unknown keys are ignored.

    A newer orchestrator may send keys that an older reward service does not know.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False, populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_default(cls, document: Any) -> Any:
        if isinstance(document, Mapping):
            return {name: value for name, value in document.items() if value is not None}
        return document


class ModelSource(_Part):
    """A reward model. `offset` None means the one in its folder's `quatrain.json`, else 0."""

    uri: Required
    digest: str = ""
    weight: float = 1.0
    name: str = "model"
    offset: float | None = None
    dtype: str = ""

    @property
    def ref(self) -> ModelRef:
        """The model's folder."""
        return ModelRef(self.uri, self.digest)


class FunctionSource(_Part):
    """A reward function: `module:function`, or uploaded code with its sha256.

    Uploaded code is `file.py:function`, or `FOLDER/:module:function`. `args` are further keyword arguments; `clip`
    bounds the absolute value before it is weighted.
    """

    path: Annotated[str, Field(pattern=r"^.+:[^:]+$")]
    weight: float = 1.0
    name: str = ""
    code_digest: Annotated[str, Field(validate_default=True)] = ""
    args: dict[str, JsonValue] = Field(default_factory=dict)
    clip: Annotated[float, Field(gt=0.0)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _named_after_its_function(cls, document: Any) -> Any:
        if isinstance(document, Mapping) and not document.get("name") and isinstance(document.get("path"), str):
            return {**document, "name": document["path"].rpartition(":")[2]}
        return document

    @field_validator("code_digest")
    @classmethod
    def _uploaded_code_has_a_digest(cls, digest: str, info: ValidationInfo) -> str:
        path = info.data.get("path", "")
        if (path.rpartition(":")[0].endswith(".py") or is_folder(path)) and not digest:
            raise ValueError(f"{path!r} is a file or folder: upload it (the client does) and send its sha256")
        return digest


class ServiceSource(_Part):
    """Another reward service at host:port."""

    target: Required
    weight: float = 1.0
    name: str = "service"


Source = ModelSource | FunctionSource | ServiceSource


class RewardSection(_Part):
    """The sources of scores and how they are combined. `timeout` bounds one call of a function or service, seconds."""

    models: Annotated[tuple[ModelSource, ...], BeforeValidator(_entries)] = ()
    functions: Annotated[tuple[FunctionSource, ...], BeforeValidator(_entries)] = ()
    service: Required | None = None
    offset: float = 0.0
    scale: float = 1.0
    clip: Annotated[float, Field(gt=0.0)] | None = None
    # Sections that were stored until version 0.1 call it timeout_s.
    timeout: Annotated[float, Field(gt=0.0, validation_alias=AliasChoices("timeout", "timeout_s"))] = (
        DEFAULT_TIMEOUT_SECONDS
    )

    @property
    def sources(self) -> tuple[Source, ...]:
        """Models first, then functions, then the service: the order in which terms are listed."""
        service = () if self.service is None else (ServiceSource(target=self.service),)
        return (*self.models, *self.functions, *service)

    def raw(self) -> "RewardSection":
        """Return the same sources without offset, scale and clip."""
        return RewardSection(models=self.models, functions=self.functions, service=self.service, timeout=self.timeout)

    def to_json(self) -> JsonObject:
        """Return the JSON form."""
        return self.model_dump(mode="json")

    def to_text(self) -> str:
        """Return the JSON text, the same for equal sections."""
        return canonical_json(self.to_json()).decode()

    @staticmethod
    def from_json(document: Mapping[str, object]) -> "RewardSection":
        """Reverse `to_json`. Raises InvalidInput naming every wrong field."""
        try:
            section = RewardSection.model_validate(document)
        except ValidationError as error:
            violations = [FieldViolation(_path(wrong["loc"]), wrong["msg"]) for wrong in error.errors()]
            listed = "; ".join(f"{wrong.field}: {wrong.description}" for wrong in violations)
            raise InvalidInput(f"the reward section is wrong: {listed}", violations) from None
        if not section.sources:
            text = "there is no reward source: name models, functions or a service"
            raise InvalidInput(f"the reward section is wrong: {text}", [FieldViolation("models", text)])
        return section

    @staticmethod
    def from_text(text: str) -> "RewardSection":
        """Reverse `to_text`. Raises InvalidInput."""
        try:
            document = parse_json(text)
        except ValueError as error:
            raise InvalidInput(f"reward_json is not JSON: {error}") from error
        if not isinstance(document, dict):
            raise InvalidInput("reward_json is not an object; send the resolved reward section")
        return RewardSection.from_json(document)


def _path(location: tuple[int | str, ...]) -> str:
    """Return the path of a location: `models[0].weight` for ("models", 0, "weight")."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).removeprefix(".")
