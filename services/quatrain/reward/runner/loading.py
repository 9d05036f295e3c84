"""Loads a function by `module:function` or from a file of source code."""

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

UPLOADED_MODULE = "quatrain_uploaded_reward"


class BadFunction(Exception):
    """The path does not name a function; the message says what it names."""


def load_function(target: str, file: str | None, folder: str | None = None) -> tuple[Callable[..., Any], str]:
    """Return the callable that `target` names and the sha256 of its code.

    `target` is `module:function`, `name:function` of a file, or `name/:module:function` of a folder. Raises
    BadFunction, and whatever the module raises while it is imported.
    """
    module_name, _, attribute = target.rpartition(":")
    if folder is not None:
        module_name = module_name.rpartition(":")[2]
        module = _module_of_folder(folder, module_name)
    else:
        module = _module_of_file(file) if file is not None else importlib.import_module(module_name)
    function: Any = module
    for part in attribute.split("."):
        if not hasattr(function, part):
            raise BadFunction(f"{module_name} has no {part!r}{_did_you_mean(part, function)}")
        function = getattr(function, part)
    if not callable(function):
        raise BadFunction(f"{target} is a {type(function).__name__}, not a function")
    return function, _code_digest(module)


def _module_of_file(file: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(UPLOADED_MODULE, file)
    if spec is None or spec.loader is None:
        raise BadFunction(f"{Path(file).name} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[UPLOADED_MODULE] = module  # dataclasses and pickle look their module up by name
    spec.loader.exec_module(module)
    return module


def _module_of_folder(folder: str, name: str) -> ModuleType:
    """Return a module of the folder, whose other modules it may import. The folder goes before installed packages."""
    first = Path(folder, *name.split(".")[:1])
    if not first.is_dir() and not first.with_suffix(".py").is_file():
        there = sorted(path.stem for path in Path(folder).glob("*.py"))
        raise BadFunction(f"the folder has no module {name!r}; it has {', '.join(there) or 'no .py file'}")
    sys.path.insert(0, folder)
    return importlib.import_module(name)


def _did_you_mean(name: str, owner: Any) -> str:
    public = [other for other in dir(owner) if not other.startswith("_")]
    close = difflib.get_close_matches(name, public, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _code_digest(module: ModuleType) -> str:
    """Return the sha256 of the module's file, or of its name if it has none (built in, compiled)."""
    source = inspect.getsourcefile(module) if getattr(module, "__file__", None) else None
    data = Path(source).read_bytes() if source and Path(source).is_file() else module.__name__.encode()
    return hashlib.sha256(data).hexdigest()
