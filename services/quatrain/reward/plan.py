"""The reward section of a call (`reward_json`), checked and as dataclasses."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quatrain.digests import parse_json
from quatrain.errors import FieldViolation, InvalidInput
from quatrain.refs import ModelRef

DEFAULT_TIME_LIMIT_SECONDS = 60.0


@dataclass(frozen=True)
class ModelSource:
    """A reward model. `offset` None means the one in its folder's `quatrain.json`, else 0."""

    ref: ModelRef
    weight: float
    name: str
    offset: float | None = None
    dtype: str = ""


@dataclass(frozen=True)
class FunctionSource:
    """A reward function: `module:function`, or `file.py:function` with the sha256 of the uploaded file."""

    path: str
    weight: float
    name: str
    code_digest: str | None = None


@dataclass(frozen=True)
class ServiceSource:
    """Another reward service at host:port."""

    target: str
    weight: float
    name: str


Source = ModelSource | FunctionSource | ServiceSource


@dataclass(frozen=True)
class RewardPlan:
    """Where scores come from and how they are composed: (weighted sum - offset) * scale, then the clip."""

    sources: tuple[Source, ...]
    offset: float = 0.0
    scale: float = 1.0
    clip: float | None = None
    time_limit: float = DEFAULT_TIME_LIMIT_SECONDS


def read_plan(reward_json: str) -> RewardPlan:
    """The plan of a resolved reward section. Raises InvalidInput naming every wrong field."""
    try:
        document = parse_json(reward_json)
    except ValueError as error:
        raise InvalidInput(f"reward_json is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidInput("reward_json is not an object; send the resolved reward section")
    reader = _Reader()
    plan = RewardPlan(
        sources=_read_sources(reader, document),
        offset=reader.number("offset", document.get("offset"), 0.0),
        scale=reader.number("scale", document.get("scale"), 1.0),
        clip=None if document.get("clip") is None else reader.positive("clip", document["clip"]),
        time_limit=reader.positive("timeout_s", document.get("timeout_s"), DEFAULT_TIME_LIMIT_SECONDS),
    )
    if not plan.sources and not reader.violations:
        reader.refuse("models", "there is no reward source: name models, functions or a service")
    if reader.violations:
        listed = "; ".join(f"{wrong.field}: {wrong.description}" for wrong in reader.violations)
        raise InvalidInput(f"the reward section is wrong: {listed}", reader.violations)
    return plan


class _Reader:
    """Reads values and collects what is wrong with them."""

    def __init__(self) -> None:
        self.violations: list[FieldViolation] = []

    def refuse(self, field: str, description: str) -> None:
        self.violations.append(FieldViolation(field, description))

    def number(self, field: str, value: Any, default: float) -> float:
        if value is None:
            return default
        try:
            number = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            self.refuse(field, f"{value!r:.80} is not a finite number")
            return default
        return number

    def positive(self, field: str, value: Any, default: float = 1.0) -> float:
        number = self.number(field, value, default)
        if number <= 0:
            self.refuse(field, f"{number} is not above 0")
        return number

    def text(self, field: str, value: Any) -> str:
        if not isinstance(value, str) or not value:
            self.refuse(field, f"{value!r} is not a text, and it is required")
            return ""
        return value

    def entries(self, field: str, value: Any) -> list[tuple[str, Mapping[str, Any]]]:
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            self.refuse(field, "is not a list of objects")
            return []
        return [(f"{field}[{index}]", item) for index, item in enumerate(value)]


def _read_sources(reader: _Reader, document: Mapping[str, Any]) -> tuple[Source, ...]:
    """Models first, then functions, then the service: the order in which terms are listed."""
    models = [_read_model(reader, *entry) for entry in reader.entries("models", document.get("models"))]
    functions = [_read_function(reader, *entry) for entry in reader.entries("functions", document.get("functions"))]
    service = document.get("service")
    services = [] if service is None else [ServiceSource(reader.text("service", service), 1.0, "service")]
    return (*models, *functions, *services)


def _read_model(reader: _Reader, field: str, entry: Mapping[str, Any]) -> ModelSource:
    offset = entry.get("offset")
    return ModelSource(
        ref=ModelRef(reader.text(f"{field}.uri", entry.get("uri")), str(entry.get("digest") or "")),
        weight=reader.number(f"{field}.weight", entry.get("weight"), 1.0),
        name=str(entry.get("name") or "model"),
        offset=None if offset is None else reader.number(f"{field}.offset", offset, 0.0),
        dtype=str(entry.get("dtype") or ""),
    )


def _read_function(reader: _Reader, field: str, entry: Mapping[str, Any]) -> FunctionSource:
    path = reader.text(f"{field}.path", entry.get("path"))
    module, colon, function = path.rpartition(":")
    if path and not (module and colon and function):
        reader.refuse(f"{field}.path", f"{path!r} is neither module:function nor file.py:function")
    code_digest = entry.get("code_digest") or None
    if module.endswith(".py") and code_digest is None:
        reader.refuse(f"{field}.code_digest", f"{path!r} is a file: upload it (the client does) and send its sha256")
    return FunctionSource(
        path=path,
        weight=reader.number(f"{field}.weight", entry.get("weight"), 1.0),
        name=str(entry.get("name") or function),
        code_digest=None if code_digest is None else str(code_digest),
    )
