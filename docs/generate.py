"""Writes the tables of docs/ that come from the source: `python docs/generate.py`; `--check` only compares.

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`; everything else is written by hand.
"""

import sys
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import typer

DOCS = Path(__file__).resolve().parent
if __name__ == "__main__":
    sys.path.insert(0, str(DOCS.parent))

from docs.spec_tables import refused_keys, spec_tables  # noqa: E402

from quatrain import errors  # noqa: E402
from quatrain.cli.app import app  # noqa: E402
from quatrain.cli.failures import EXIT_CODES, OUTCOMES  # noqa: E402
from quatrain.config import ProcessConfig  # noqa: E402
from quatrain.config.sources import is_secret  # noqa: E402
from quatrain.data.formats import PAIRS_KIND, PROMPTS_KIND, SFT_KIND  # noqa: E402
from quatrain.joblog.payloads import PAYLOADS  # noqa: E402
from quatrain.rpc.errors import code_of  # noqa: E402

# Defaults that the process works out for itself.
COMPUTED_DEFAULTS = {name: "host name and process id" for name in ("learner.id", "orchestrator.id", "rollout.id")} | {
    "learner.ranks": "`WORLD_SIZE`, else `1`",
    "learner.rank": "`RANK`, else `0`",
    "learner.rendezvous": "`MASTER_ADDR:MASTER_PORT`, else empty",
}

KINDS: dict[str, Any] = {kind.name: kind for kind in (SFT_KIND, PAIRS_KIND, PROMPTS_KIND)}


def config_tables() -> str:
    """One table a section of the configuration of a process."""
    parts: list[str] = []
    for section, info in ProcessConfig.model_fields.items():
        kind: Any = info.annotation
        parts += [
            f"### {section}",
            "",
            (kind.__doc__ or "").strip(),
            "",
            "| key | default | meaning |",
            "|---|---|---|",
        ]
        for name, field in kind.model_fields.items():
            key = f"{section}.{name}"
            default = COMPUTED_DEFAULTS.get(key) or _code(field.default)
            secret = " (secret)" if is_secret(field) else ""
            parts.append(f"| `{key}` | {default} | {_cell(field.description or '')}{secret} |")
        parts.append("")
    return "\n".join(parts).rstrip()


def errors_table() -> str:
    """Error class, stable reason and gRPC status."""
    rows = ["| reason (ErrorInfo) | gRPC status | meaning |", "|---|---|---|"]
    for kind in _tree(errors.QuatrainError):
        meaning = _cell((kind.__doc__ or "").strip())
        if kind is errors.QuatrainError:
            meaning = "A failure that nobody foresaw; the server's log has it under the request id."
        rows.append(f"| `{kind.reason}` | {code_of(kind('')).name} | {meaning} |")
    return "\n".join(rows)


def exit_codes_table() -> str:
    """Exit codes of the command line."""
    failures: dict[int, list[str]] = {}
    for kind, code in EXIT_CODES:
        if kind is not errors.QuatrainError:
            failures.setdefault(code, []).append(f"`{kind.reason}`")
    meanings = {0: "ok", 1: "unexpected", 2: "usage", 3: "invalid spec or data", 4: "not found", 5: "permission"}
    meanings |= {6: "server unreachable", 9: "wait timed out", 130: "interrupted; the job goes on"}
    meanings |= {code: f"job {state.lower()}" for state, code in OUTCOMES.items() if code}
    rows = ["| code | meaning | errors |", "|---|---|---|"]
    rows += [f"| {code} | {meanings[code]} | {', '.join(failures.get(code, []))} |" for code in sorted(meanings)]
    return "\n".join(rows)


def cli_tables() -> str:
    """One part a command: usage, help, arguments and options."""
    return "\n\n".join(_command(path, command) for path, command in commands())


def commands() -> Iterator[tuple[str, Any]]:
    """Every command that does something, as ("job submit", command)."""
    root: Any = typer.main.get_command(app)
    for name, command in root.commands.items():
        if hasattr(command, "commands"):
            yield from ((f"{name} {inner}", leaf) for inner, leaf in command.commands.items())
        else:
            yield name, command


def events_table() -> str:
    """One row a type of event: its fields and what they say."""
    rows = ["| type | data | meaning |", "|---|---|---|"]
    for payload in PAYLOADS:
        fields = ", ".join(f"`{name}`" for name in payload.model_fields)
        said = [
            f"`{name}`: {info.description.strip().removesuffix('.')}."
            for name, info in payload.model_fields.items()
            if info.description
        ]
        rows.append(f"| `{payload.TYPE}` | {fields} | {_cell(' '.join([(payload.__doc__ or '').strip(), *said]))} |")
    return "\n".join(rows)


def _command(path: str, command: Any) -> str:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and each.name != "help"]
    names = " ".join(each.metavar or each.name.upper() for each in arguments)
    usage = f"quatrain {path} {names}".strip() + (" [OPTIONS]" if options else "")
    lines = [f"### {path}", "", f"`{usage}`", "", command.help.strip().replace("Example: ", "Example: `")]
    lines[-1] = "\n".join(f"{line}`" if line.startswith("Example: `") else line for line in lines[-1].split("\n"))
    if options:
        lines += ["", "| option | default | meaning |", "|---|---|---|"]
        lines += [f"| `{_option(each)}` | {_default(each)} | {_cell(each.help or '')} |" for each in options]
    return "\n".join(lines)


def _option(option: Any) -> str:
    names = ", ".join(sorted(option.opts, key=len))
    if option.is_flag:
        return names
    return f"{names} {option.metavar or option.name.upper()}"


def _default(option: Any) -> str:
    if option.is_flag or option.default in (None, ""):
        return ""
    return f"`{option.default.value if isinstance(option.default, Enum) else option.default}`"


def _tree(kind: type[errors.QuatrainError]) -> Iterator[type[errors.QuatrainError]]:
    """Return the class and those below it that `errors.py` defines."""
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from _tree(child)


def formats_table() -> str:
    """One row a format of data: what it is for, its name, and the columns by which it is known."""
    rows = ["| for | format | columns |", "|---|---|---|"]
    named = [(name, each.name, each.doc, each.known) for name, kind in KINDS.items() for each in kind.formats]
    for kind_name, name, doc, known in dict.fromkeys(named):
        rows.append(f"| {kind_name} | `{name}`{' (a name for `format`)' if known else ''} | {_cell(doc)} |")
    rows.append("| preferences | `labelled-pairs` | `prompt`, two answers (`a` and `b`) and a label or two scores |")
    return "\n".join(rows)


def _code(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`{','.join(value)}`" if value else "empty"
    return f"`{value}`" if value != "" else "empty"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


BLOCKS: dict[str, tuple[str, Callable[[], str]]] = {
    "spec": ("spec.md", spec_tables),
    "refused": ("spec.md", refused_keys),
    "config": ("configuration.md", config_tables),
    "cli": ("cli.md", cli_tables),
    "exit-codes": ("cli.md", exit_codes_table),
    "errors": ("api.md", errors_table),
    "events": ("events.md", events_table),
    "formats": ("data.md", formats_table),
}


def rendered(file: str) -> str:
    """Return a file of docs/ with its generated parts made anew. Raises ValueError when a part has no place in it."""
    text = (DOCS / file).read_text(encoding="utf-8")
    for name, (place, make) in BLOCKS.items():
        if place == file:
            head, begin, rest = text.partition(f"<!-- generated: {name} -->\n")
            _, end, tail = rest.partition("<!-- end -->")
            if not begin or not end:
                raise ValueError(f"docs/{file} has no place for the generated part {name!r}")
            text = f"{head}{begin}{make()}\n{end}{tail}"
    return text


def stale_files() -> list[str]:
    """Files of docs/ whose generated parts are not those of the source."""
    files = sorted({place for place, _ in BLOCKS.values()})
    return [file for file in files if (DOCS / file).read_text(encoding="utf-8") != rendered(file)]


def main(arguments: list[str]) -> int:
    """Write what is stale, or with `--check` only name it."""
    stale = stale_files()
    for file in stale:
        print(f"docs/{file}")
        if "--check" not in arguments:
            (DOCS / file).write_text(rendered(file), encoding="utf-8")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
