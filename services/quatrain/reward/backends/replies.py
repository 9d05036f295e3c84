"""The answers of a runner, read with distrust: they are bytes from foreign code."""

import json
import math
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    InstanceOf,
    Strict,
    TypeAdapter,
    ValidationError,
)

MAX_REPLY_BYTES = 64 * 2**20
MAX_NAME_BYTES = 200
MAX_NAMES = 10_000
MAX_MESSAGE_CHARACTERS = 2000

T = TypeVar("T")


class BadReply(Exception):
    """The bytes are not an answer of a runner."""


def _checked_name(name: str) -> str:
    if len(name.encode()) > MAX_NAME_BYTES:
        raise ValueError("the name is too long")
    return name


def _checked_size(columns: Any) -> Any:
    """Refuse what pydantic would otherwise report entry by entry."""
    if isinstance(columns, dict) and len(columns) > MAX_NAMES:
        raise ValueError("there are too many names")
    return columns


def _printable(message: Any) -> Any:
    return message[:MAX_MESSAGE_CHARACTERS].encode(errors="replace").decode() if isinstance(message, str) else message


def _strict_json(value: Any) -> Any:
    """Return the value with NaN and infinity as text, since strict JSON has neither."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, list):
        return [_strict_json(item) for item in value]
    if isinstance(value, dict):
        return {key: _strict_json(item) for key, item in value.items()}
    return value


Name = Annotated[str, AfterValidator(_checked_name)]
Number = InstanceOf[float]
"""A float, as the runner sends them, NaN included. A strict float of pydantic may be an integer too large for one."""
Column = Annotated[tuple[T, ...], Strict(False), FailFast()]
Columns = Annotated[dict[Name, Column[T]], BeforeValidator(_checked_size)]
Term = Annotated[tuple[Name | None, Column[Number | None]], Strict(False)]
Logged = Annotated[Any, AfterValidator(_strict_json)]


class _Reply(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, hide_input_in_errors=True)


class Loaded(_Reply):
    """The function is there. `enforced` says what could be kept from it, by name."""

    status: Literal["loaded"]
    code_digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    enforced: dict[str, bool]


class Returned(_Reply):
    """What the function returned and logged; a term has no name when the function returned one list and no dict."""

    status: Literal["returned"]
    terms: Annotated[Column[Term], Field(min_length=1)]
    logged: Columns[Logged]
    metrics: Columns[Number]


class Failed(_Reply):
    """The function, or its import, failed. `sample` is the first wrong sample, when there is one.

    `advice` is the way out where the runner knows it; `any_sample`: it cannot be called at all, whatever the sample.
    """

    status: Literal["failed"]
    message: Annotated[str, BeforeValidator(_printable)]
    advice: Annotated[str, BeforeValidator(_printable)] = ""
    any_sample: bool = False
    sample: Annotated[int, Field(ge=0)] | None = None


_LOADED: TypeAdapter[Loaded | Failed] = TypeAdapter(Annotated[Loaded | Failed, Field(discriminator="status")])
_RETURNED: TypeAdapter[Returned | Failed] = TypeAdapter(Annotated[Returned | Failed, Field(discriminator="status")])


def read_loaded(body: bytes) -> Loaded | Failed:
    """Read the answer to a request to load a function. Raises BadReply."""
    reply = _read(_LOADED, body)
    if isinstance(reply, Failed) and reply.sample is not None:
        raise BadReply("it names a sample, and no sample was sent")
    return reply


def read_returned(body: bytes, samples: int) -> Returned | Failed:
    """Read the answer to a call about so many samples. Raises BadReply."""
    reply = _read(_RETURNED, body)
    if isinstance(reply, Failed):
        fits = reply.sample is None or reply.sample < samples
    else:
        columns = [*(values for _, values in reply.terms), *reply.logged.values()]
        fits = all(len(values) == samples for values in columns)
    if not fits:
        raise BadReply(f"it is not about the {samples} samples of the call")
    return reply


def _read(adapter: TypeAdapter[T], body: bytes) -> T:
    try:
        return adapter.validate_python(json.loads(body))
    except ValidationError as error:
        raise BadReply("it does not have the fields of an answer") from error
    except (ValueError, RecursionError) as error:
        raise BadReply(f"it is not JSON ({type(error).__name__})") from error
