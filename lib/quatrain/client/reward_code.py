"""The reward code that a spec names by path: one file, or a folder of files that import each other."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from quatrain.code_folder import folder_of, pack, read_folder
from quatrain.errors import InvalidData


def code_path(path: str) -> str:
    """Return `file.py` of `file.py:function`, or `FOLDER/` of `FOLDER/:module:function`.

    Empty for `module:function`, which the server imports.
    """
    if folder := folder_of(path):
        return folder
    file = path.rpartition(":")[0]
    return file if file.removeprefix("file://").endswith(".py") else ""


def sent_path(path: str, local: Path) -> str:
    """Return what the server is told: no path of this machine, but names for people."""
    if not folder_of(path):
        return f"{local.name}:{path.rpartition(':')[2]}"
    module, function = path.rsplit(":", 2)[1:]
    return f"{local.resolve().name or 'rewards'}/:{module}:{function}"


def packed(folder: Path) -> bytes:
    """Return the folder as it is uploaded. Raises InvalidData."""
    return pack(read_folder(folder))


def code_faults(path: str, local: Path) -> Iterator[str]:
    """Yield why the code of a spec's `path`, which lies at `local`, cannot work on the server."""
    if folder_of(path):
        yield from _folder_faults(path, local)
    elif not local.is_file():
        yield f"{local} is not a file; paths start from the folder of the spec file"
    else:
        yield from _lonely_imports(path, local)


def _folder_faults(path: str, local: Path) -> Iterator[str]:
    if not local.is_dir():
        yield f"{local} is not a folder; paths start from the folder of the spec file"
        return
    try:
        files = read_folder(local)
    except InvalidData as error:
        yield error.message
        return
    module = path.rsplit(":", 2)[1].replace(".", "/")
    if not {f"{module}.py", f"{module}/__init__.py"} & files.keys():
        there = sorted(name.removesuffix(".py").replace("/", ".") for name in files if name.endswith(".py"))
        yield f"{local} has no module {module.replace('/', '.')!r}; it has {', '.join(there[:10])}"


def _lonely_imports(path: str, local: Path) -> Iterator[str]:
    """Yield the first import of something that lies beside the file and would not be uploaded with it."""
    try:
        tree = ast.parse(local.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return  # The server's trial says what is wrong with it, for the Python that will run it.
    function = path.rpartition(":")[2]
    for statement in _imports(tree):
        for name, relative in _modules(statement):
            first = name.partition(".")[0]
            beside = next(
                (each for each in (local.parent / f"{first}.py", local.parent / first) if each.exists()), None
            )
            if relative:
                above = local.parent.resolve()
                way = f"`path: {local.parent.parent}/:{above.name}.{local.stem}:{function}`"
            elif beside is not None and beside != local and first not in sys.stdlib_module_names:
                way = f"`path: {local.parent}/:{local.stem}:{function}`"
            else:
                continue
            yield (
                f"{local.name}, line {statement.lineno}, imports {name or '.'!r}, and one file is uploaded alone; "
                f"give the folder: {way}"
            )
            return


def _imports(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the imports of a file, but not those that may fail: the file is written to do without them."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif not isinstance(node, ast.Try) and not (
            isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        ):
            yield from _imports(node)


def _modules(statement: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, bool]]:
    """Yield the modules that a statement imports, and whether it names them relative to the file."""
    if isinstance(statement, ast.Import):
        yield from ((alias.name, False) for alias in statement.names)
    else:
        yield statement.module or "", statement.level > 0
