"""Imports the scripts of an example as they import each other: by name from their own folder."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
COURTEOUS = EXAMPLES / "courteous-replies"
COUNT_TOKEN = EXAMPLES / "count-token"


def script(folder: Path, name: str) -> ModuleType:
    """The module `name` of an example; nothing of it stays on the path or among the loaded modules."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))
        for loaded in set(sys.modules) - before:
            if str(getattr(sys.modules[loaded], "__file__", None) or "").startswith(str(folder)):
                del sys.modules[loaded]
