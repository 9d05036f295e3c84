"""Opens the spec of a job that exists. It was checked when it was submitted, by the rules and bounds of that time.

Today's rules are not applied again, so that an accepted job stays readable whatever has become stricter since. Keys of
a newer version are ignored here; those who show a spec show the stored document itself.
"""

from collections.abc import Mapping
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from quatrain.errors import Corrupt
from quatrain.jobspec.sections import DataSpec, JobSpec, Section


def open_spec(document: Mapping[str, object]) -> JobSpec:
    """Return the spec that a stored document holds, with defaults for what it lacks. Raises Corrupt."""
    try:
        return JobSpec.model_validate(document)
    except ValidationError:
        spec = _open(JobSpec, document, "")
        assert isinstance(spec, JobSpec)
        return spec


def _open(section: type[Section], document: object, path: str) -> Section:
    if not isinstance(document, Mapping):
        raise Corrupt(f"the stored spec has no fields at {path or 'its top'}")
    values: dict[str, object] = {}
    for name, field in section.model_fields.items():
        where = f"{path}.{name}".removeprefix(".")
        if name in document:
            values[name] = _value(field.annotation, document[name], where)
        elif field.is_required():
            raise Corrupt(f"the stored spec lacks {where}")
    return section.model_construct(_fields_set=set(values), **values)


def _value(annotation: Any, value: object, path: str) -> object:
    inner = _section_in(annotation)
    if inner is None:
        return _plain(annotation, value, path)
    several, parts = _is_tuple(annotation), get_args(annotation)
    if value is None and type(None) in parts:
        return None
    if several and isinstance(value, list | tuple):
        return tuple(_open(inner, item, f"{path}.{index}") for index, item in enumerate(value))
    if inner is DataSpec and isinstance(value, str):
        return _open(DataSpec, {"uri": value}, path)
    return _open(inner, None if several else value, path)


def _plain(annotation: Any, value: object, path: str) -> object:
    try:
        read: object = _reader(annotation).validate_python(value)
    except ValidationError as error:
        raise Corrupt(f"the stored spec has {value!r:.80} at {path}: {error.errors()[0]['msg']}") from error
    return read


@cache
def _reader(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(_without_bounds(annotation))


def _without_bounds(annotation: Any) -> Any:
    """Return the type alone: no bounds, no patterns, no choices."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _without_bounds(arguments[0])
    if origin is Literal:
        return str
    if origin in (Union, UnionType):
        return Union[tuple(_without_bounds(each) for each in arguments)]  # noqa: UP007 - made at run time
    if origin in (tuple, dict):
        return origin[tuple(each if each is Ellipsis else _without_bounds(each) for each in arguments)]
    return annotation


def _is_tuple(annotation: Any) -> bool:
    return get_origin(annotation) is tuple or any(_is_tuple(each) for each in get_args(annotation))


def _section_in(annotation: Any) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next((found for each in get_args(annotation) if (found := _section_in(each)) is not None), None)
