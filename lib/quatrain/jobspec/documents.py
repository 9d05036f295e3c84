"""Reads spec documents: YAML 1.2's scalars, positions in every error, no duplicate keys, bounded size and depth.

PyYAML resolves scalars as YAML 1.1 does, where `1e-5` is a string, `no` is false and `1:30` is 90. A spec is full of
learning rates, so the resolvers here follow the core schema of YAML 1.2 instead.
"""

import re
from pathlib import Path

import yaml

from quatrain.errors import InvalidSpec

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_NODES = 20_000


class _Loader(yaml.SafeLoader):
    """SafeLoader with the core schema's scalars and a bound on nesting that holds before Python's stack does."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            mark = self.get_mark()
            raise yaml.MarkedYAMLError(problem=f"nested more than {MAX_DEPTH} levels deep", problem_mark=mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("int", r"^[-+]?[0-9]+$", "-+0123456789"),
    (
        "float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+.0123456789",
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


def _decimal_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    # PyYAML's own constructor reads `010` as octal.
    text = loader.construct_scalar(node)
    if len(text) > 30:
        raise yaml.MarkedYAMLError(problem="a whole number of more than 30 digits", problem_mark=node.start_mark)
    return int(text)


_Loader.add_constructor("tag:yaml.org,2002:int", _decimal_int)


def load_yaml(source: Path | str) -> dict[str, object]:
    """Return the document in a file (Path) or a text (str), YAML or JSON.

    Raises InvalidSpec with `file:line:column: problem`.
    """
    if isinstance(source, Path):
        try:
            data = source.read_bytes()
        except OSError as error:
            raise InvalidSpec(f"The job spec {source} cannot be read: {error.strerror}.") from None
        name = str(source)
    else:
        name, data = "spec", source.encode("utf-8", "surrogatepass")
    if len(data) > MAX_BYTES:
        raise InvalidSpec(f"{name}: a job spec may have {MAX_BYTES} bytes, this has {len(data)}.")
    document = _parse(_decode(data, name), name)
    if document is None:
        raise InvalidSpec(f"{name}: the job spec is empty.")
    if not isinstance(document, dict):
        raise InvalidSpec(f"{name}: the job spec must be a mapping of keys, not a {type(document).__name__}.")
    return document


def load_value(text: str) -> object:
    """Return one YAML value, as `--set key=VALUE` gives it. Raises InvalidSpec."""
    return _parse(text, "value")


def _decode(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidSpec(f"{name}:{line}: byte 0x{data[error.start]:02x} is not UTF-8.") from None


def _parse(text: str, name: str) -> object:
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check(node)
            document: object = loader.construct_document(node)
            return document
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise InvalidSpec(f"{name}{where}: {_problem(error)}.") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InvalidSpec(f"{name}:{line}: the character U+{ord(text[error.position]):04X} is not allowed.") from None


def _problem(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "not valid YAML"
    if "'\\t'" in problem:
        problem += " (indent with spaces, not tabs)"
    return f"{error.context}, {problem}" if error.context else problem


def _check(root: yaml.Node) -> None:
    """Refuse duplicate and non-string keys, anchors that hold themselves, and documents that aliases blow up."""
    measured: dict[int, tuple[int, int] | None] = {}
    aliased = False

    def measure(node: yaml.Node) -> tuple[int, int]:
        """Return how many values and levels the node has with aliases written out."""
        nonlocal aliased
        if id(node) in measured:
            aliased = True
            known = measured[id(node)]
            if known is None:
                raise yaml.MarkedYAMLError(problem="an alias inside its own anchor", problem_mark=node.start_mark)
            return known
        measured[id(node)] = None
        inner = [measure(child) for child in _children(node)]
        values, levels = 1 + sum(size for size, _ in inner), 1 + max((depth for _, depth in inner), default=0)
        if values > MAX_NODES or levels > MAX_DEPTH:
            bound = f"{MAX_NODES} values" if values > MAX_NODES else f"{MAX_DEPTH} levels"
            counted = " with aliases written out" if aliased else ""
            raise yaml.MarkedYAMLError(
                problem=f"more than {bound}{counted}: a job spec this large is not read", problem_mark=node.start_mark
            )
        measured[id(node)] = values, levels
        return values, levels

    measure(root)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    if not isinstance(node, yaml.MappingNode):
        return []
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
            raise yaml.MarkedYAMLError(problem="keys must be strings", problem_mark=key.start_mark)
        if key.value in lines:
            raise yaml.MarkedYAMLError(
                problem=f"duplicate key {key.value!r}, first given in line {lines[key.value]}",
                problem_mark=key.start_mark,
            )
        lines[key.value] = key.start_mark.line + 1
    return [value for _, value in node.value]
