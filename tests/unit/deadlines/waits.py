"""Finds, in source code, every call that may wait for somebody else and names no end to that.

What it knows: RPC methods (of all services, by descriptor), waits of asyncio and threading, queues, processes, sockets,
HTTP pools and Redis clients. A call is bounded by its own time-out or by an `asyncio.timeout`/`wait_for` around it.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health_pb2

from quatrain.v1 import artifact_pb2, generation_pb2, job_pb2, learner_pb2, reference_pb2, reward_pb2

ROOT = Path(__file__).resolve().parents[3]
SOURCES = ("lib/quatrain", "services/quatrain", "orchestrator/quatrain")
MODULES = (artifact_pb2, generation_pb2, health_pb2, job_pb2, learner_pb2, reference_pb2, reward_pb2)

# Without an argument these wait forever; with one the first is the time-out (`dict.get` and `str.join` need one).
BARE = frozenset({"wait", "join", "result", "get", "acquire", "communicate", "read", "drain"})
# These need this keyword.
KEYWORD = {
    "asyncio.wait": "timeout",
    "subprocess.run": "timeout",
    "subprocess.check_output": "timeout",
    "subprocess.check_call": "timeout",
    "socket.create_connection": "timeout",
    "urllib.request.urlopen": "timeout",
    "PoolManager": "timeout",
    "Minio": "http_client",
    "Redis.from_url": "socket_timeout",
    "Redis": "socket_timeout",
}
READS = frozenset({"readexactly", "readline", "readuntil"})
BOUNDS = frozenset({"asyncio.timeout", "asyncio.timeout_at", "asyncio.wait_for"})
# Take a method of a stub and call it with a time-out.
CALLERS = frozenset({"call", "stream"})


def rpc_methods() -> frozenset[str]:
    """Names of all methods of all services."""
    names: set[str] = set()
    for module in MODULES:
        file: FileDescriptor = module.DESCRIPTOR
        for service in file.services_by_name.values():
            names |= {method.name for method in service.methods}
    return frozenset(names)


@dataclass(frozen=True)
class Wait:
    """A call without an end. `place` is file::function, `what` its source in short."""

    place: str
    what: str
    line: int

    @property
    def key(self) -> str:
        return f"{self.place}::{self.what}"


def waits() -> list[Wait]:
    """All that the code has."""
    return [wait for folder in SOURCES for path in sorted((ROOT / folder).rglob("*.py")) for wait in waits_of(path)]


def waits_of(path: Path) -> Iterator[Wait]:
    if "v1" in path.parts:
        return
    source = path.read_text(encoding="utf-8")
    yield from waits_in(source, path.relative_to(ROOT).as_posix())


def waits_in(source: str, name: str) -> list[Wait]:
    """Those of one file."""
    finder = _Finder(name)
    finder.visit(ast.parse(source))
    return finder.found


class _Finder(ast.NodeVisitor):
    def __init__(self, name: str) -> None:
        self._name = name
        self._functions: list[str] = []
        self._bounds = 0
        self._callers = 0
        self._methods = rpc_methods()
        self.found: list[Wait] = []

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._inside(node, node.name)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._inside(node, node.name)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._inside(node, node.name)

    def visit_AsyncWith(self, node: ast.AsyncWith) -> None:
        bounded = any(_called(item.context_expr) in BOUNDS for item in node.items)
        self._bounds += bounded
        self.generic_visit(node)
        self._bounds -= bounded

    def visit_Call(self, node: ast.Call) -> None:
        if not self._bounds and self._is_open(node):
            self._note(node)
        bounded = _called(node) in BOUNDS
        caller = isinstance(node.func, ast.Attribute) and node.func.attr in CALLERS
        self._bounds += bounded
        self._callers += caller
        if isinstance(node.func, ast.Attribute):
            self.visit(node.func.value)  # the method itself is not a reference to it
        for child in (*node.args, *(keyword.value for keyword in node.keywords)):
            self.visit(child)
        self._bounds -= bounded
        self._callers -= caller

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """A method of a stub that is handed on, to be called by somebody who may forget the time-out."""
        if node.attr in self._methods and not self._callers and not _is_super(node.value) and _is_stub(node.value):
            self._note(node)
        self.generic_visit(node)

    def _is_open(self, node: ast.Call) -> bool:
        keywords = {keyword.arg for keyword in node.keywords}
        name = _called(node)
        if name in KEYWORD:
            return KEYWORD[name] not in keywords
        if not isinstance(node.func, ast.Attribute):
            return False
        method = node.func.attr
        if method in self._methods and not _is_super(node.func.value):
            return "timeout" not in keywords
        if method in READS:
            return True
        return method in BARE and not node.args and not keywords

    def _inside(self, node: ast.AST, name: str) -> None:
        self._functions.append(name)
        # What is inside runs later, outside of the bounds and callers here.
        kept, self._bounds, self._callers = (self._bounds, self._callers), 0, 0
        self.generic_visit(node)
        self._bounds, self._callers = kept
        self._functions.pop()

    def _note(self, node: ast.expr) -> None:
        target = node.func if isinstance(node, ast.Call) else node
        text = ast.unparse(target) + ("()" if isinstance(node, ast.Call) else "")
        self.found.append(Wait(f"{self._name}::{'.'.join(self._functions)}", text, node.lineno))


def _called(node: ast.expr) -> str:
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


def _is_super(node: ast.expr) -> bool:
    return _called(node) == "super"


def _is_stub(node: ast.expr) -> bool:
    """By its name; other things have attributes of these names too, enumerations for example."""
    return "stub" in ast.unparse(node).lower()
