"""A sandbox for chat templates of foreign folders: it bounds how much they compute, not only what they can reach.

jinja2's sandbox keeps a template from Python's internals. It bounds neither loops nor sizes, so three nested loops or
`"a" * 10 ** 10` would block the process or fill its memory. Here every turn of a loop, call and filter checks the CPU
time of the rendering, and operators and arguments that make large values from small ones are bounded.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from functools import wraps
from typing import Any

import jinja2.nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

SECONDS = 1.0
"""CPU time of one rendering; a usual one takes less than a thousandth."""
MAX_CHARACTERS = 16 * 2**20
MAX_COUNT = 10_000
"""Largest number among the arguments of filters and methods: widths, counts, repetitions."""
MAX_BITS = 4096
"""Bits of a whole number that `*` and `**` may make."""

_until: ContextVar[float] = ContextVar("_until")


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """An environment whose templates are bounded; going beyond a bound raises SecurityError, a TemplateError."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, **options: Any) -> None:
        super().__init__(finalize=_weighed, **options)
        del self.globals["lipsum"]
        self.bound_filters()
        self.filters["_bounded"] = _bounded
        self.filters["_together"] = _together

    def bound_filters(self) -> None:
        """Bound all filters that are there now."""
        self.filters = {name: bounded(function) for name, function in self.filters.items()}
        self.filters["replace"] = _replaced
        self.filters["format"] = _refused_format

    def _parse(self, source: str, name: str | None, filename: str | None) -> jinja2.nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in list(tree.find_all(jinja2.nodes.For)):
            loop.iter = _filtered("_bounded", loop.iter)
        for together in list(tree.find_all(jinja2.nodes.Concat)):
            together.nodes = [_filtered("_together", jinja2.nodes.List(list(together.nodes)))]
        tree.set_environment(self)
        return tree

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Apply the operator, unless the result is too large. Raises SecurityError."""
        _tick()
        _check_operands(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call with bounded arguments and result. Raises SecurityError."""
        _check_method(__obj, args)
        return bounded(super().call)(__context, __obj, *args, **kwargs)


def rendered(pieces: Callable[[], Iterable[str]]) -> str:
    """Return the text that a template writes within its time. Raises SecurityError."""
    token = _until.set(time.thread_time() + SECONDS)
    try:
        written, letters = [], 0
        for piece in pieces():
            letters += len(piece)
            _check_size(letters)
            written.append(piece)
        return "".join(written)
    finally:
        _until.reset(token)


def _filtered(name: str, node: Any) -> jinja2.nodes.Expr:
    return jinja2.nodes.Filter(node, name, [], [], None, None)


def _bounded(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        _tick()
        yield value


def _together(values: list[Any]) -> str:
    texts = [str(_weighed(value)) for value in values]
    _check_size(sum(map(len, texts)))
    return "".join(texts)


def bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with bounded arguments and results."""

    @wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        _tick()
        for argument in (*args, *kwargs.values()):
            _weighed(argument)
            if isinstance(argument, int) and abs(argument) > MAX_COUNT:
                raise SecurityError(f"the number {argument!r:.40} is too large here: at most {MAX_COUNT}")
        result = function(*args, **kwargs)
        _check_size(len(result) if isinstance(result, str | list | tuple | dict) else 0)
        return result

    return checked


def _weighed(value: Any) -> Any:
    """Return the value. Raise SecurityError if its text would be too long: a list can hold another one many times."""
    waiting, weight = [value], 0
    while waiting and isinstance(waiting[-1], str | list | tuple | dict):
        item = waiting.pop()
        weight += len(item)
        _check_size(weight)
        if not isinstance(item, str):
            _tick()
            inner = item.values() if isinstance(item, dict) else item
            waiting += [each for each in inner if isinstance(each, str | list | tuple | dict)]
    return value


def _check_method(method: Any, args: tuple[Any, ...]) -> None:
    """Refuse methods of texts that can make a large text from a small one."""
    method = getattr(method, "__wrapped__", method)  # jinja2 wraps `format`
    text, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
    if not isinstance(text, str):
        return
    if name in ("format", "format_map", "translate"):
        raise SecurityError(f"texts have no method {name} in chat templates; use ~")
    if name == "replace" and len(args) > 1:
        _check_size(len(text) + text.count(str(args[0])) * len(str(args[1])))
    if name == "join" and args:
        _check_size(len(text) * len(args[0]) if isinstance(args[0], str | list | tuple | dict) else 0)


def _replaced(text: Any, old: str, new: str, count: int | None = None) -> str:
    """Return the text with `old` replaced, as the filter `replace` does."""
    whole = str(_weighed(text))
    _check_method(whole.replace, (old, new))
    return whole.replace(old, new, -1 if count is None else count)


def _refused_format(*_args: Any, **_kwargs: Any) -> str:
    raise SecurityError("texts are not formatted with % in chat templates; use ~")


def _check_operands(operator: str, left: Any, right: Any) -> None:
    sizes = [len(value) if isinstance(value, str | list | tuple) else None for value in (left, right)]
    if operator == "+":
        _check_size(sum(size or 0 for size in sizes))
    elif operator == "%" and isinstance(left, str):
        raise SecurityError("texts are not formatted with % in chat templates; use ~")
    elif operator == "*" and (sizes[0] is not None or sizes[1] is not None):
        count = right if sizes[0] is not None else left
        _check_size((sizes[0] or sizes[1] or 0) * count if isinstance(count, int) else 0)
    elif operator in ("*", "**") and isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * right if operator == "**" else left.bit_length() + right.bit_length()
        if bits > MAX_BITS:
            raise SecurityError("the number is too large")


def _check_size(size: int) -> None:
    if size > MAX_CHARACTERS:
        raise SecurityError(f"it makes more than {MAX_CHARACTERS} characters or items")


def _tick() -> None:
    if time.thread_time() > _until.get(float("inf")):
        raise SecurityError(f"it takes more than {SECONDS:g} s to render")
