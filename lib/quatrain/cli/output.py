"""Data to stdout in the format that was asked for; hints to stderr."""

import dataclasses
import datetime
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, TextIO

import typer
import yaml
from rich.console import Console

from quatrain.cli.tables import Column, layout

# Columns of a table that goes to a pipe: nothing is wrapped there.
PIPE_WIDTH = 4096


class Format(StrEnum):
    """A format of printed data."""

    table = "table"
    json = "json"
    yaml = "yaml"
    name = "name"


class ListFormat(StrEnum):
    """A format of a list: those of other data, and a table with all columns in full."""

    table = "table"
    wide = "wide"
    json = "json"
    yaml = "yaml"
    name = "name"

    @property
    def plain(self) -> Format:
        """The format without the width."""
        return Format.table if self is ListFormat.wide else Format(self.value)


ListOutput = Annotated[
    ListFormat,
    typer.Option("--output", "-o", help="table, wide (every column), json or yaml for programs, name: bare ids only."),
]
Output = Annotated[
    Format, typer.Option("--output", "-o", help="table for people, json or yaml for programs, name: bare ids only.")
]


def console(*, stderr: bool = False) -> Console:
    """Return a console that takes every text literally, and does not wrap when it writes into a pipe."""
    made = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    return made if made.is_terminal else Console(stderr=stderr, markup=False, highlight=False, width=PIPE_WIDTH)


def writes_unicode(stream: TextIO) -> bool:
    """Return whether a stream can write every character: the others get escapes in documents, "?" in texts."""
    return (stream.encoding or "utf-8").lower().replace("-", "").replace("_", "").startswith("utf")


def plain(text: str) -> str:
    """Return the text with visible control characters: prompts and completions must not control a terminal."""
    return "".join(c if c in "\n\t" or c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def one_line(text: str, width: int = 60) -> str:
    """Return the text on one line, cut to `width` characters."""
    line = plain(" ".join(text.split()))
    return line if len(line) <= width else line[: width - 1] + "…"


def number(value: float | None, digits: int = 4) -> str:
    """Return a number for people; a dash where there is none."""
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.{digits}g}"


def age(time: str, now: datetime.datetime | None = None) -> str:
    """Return how long ago a time (RFC 3339) was, such as 40s, 3m, 5h or 12d; the text itself when it is no time."""
    try:
        then = datetime.datetime.fromisoformat(time)
    except ValueError:
        return time
    seconds = int(((now or datetime.datetime.now(datetime.UTC)) - then).total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{max(0, seconds)}s"


def document(value: Any) -> Any:
    """Return the plain JSON values of a resource, or of a list of them."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return json.loads(json.dumps(dataclasses.asdict(value)))
    if isinstance(value, list | tuple):
        return [document(each) for each in value]
    return value


def print_json(value: Any, *, line: bool = False) -> None:
    """Print one JSON document, on one line for streams."""
    escaped = not writes_unicode(sys.stdout)
    text = json.dumps(document(value), ensure_ascii=escaped, indent=None if line else 2, allow_nan=False)
    print(text, flush=line)


def print_data(value: Any, format: Format) -> None:
    """Print a document as JSON or YAML."""
    if format is Format.json:
        print_json(value)
    else:
        unicode = writes_unicode(sys.stdout)
        yaml.safe_dump(document(value), sys.stdout, sort_keys=False, allow_unicode=unicode, width=PIPE_WIDTH)


def print_names(names: Iterable[str]) -> None:
    """Print bare names, one a line."""
    for name in names:
        print(plain(name))


def print_table(columns: Sequence[Column | str], rows: Iterable[Sequence[str]], *, wide: bool = False) -> None:
    """Print a table whose first line has the names of the columns; `wide` shows every column in full.

    On a terminal a row is one line: columns give way, and those that disappear are named on stderr.
    """
    given = [each if isinstance(each, Column) else Column(each) for each in columns]
    chosen = [at for at, column in enumerate(given) if wide or not column.wide]
    cells = [[plain(" ".join(row[at].split())) for at in chosen] for row in rows]
    lines, hidden = layout([given[at] for at in chosen], cells, PIPE_WIDTH if wide else console().width)
    for line in lines:
        print(line)
    if hidden:
        hint(f"no room for {', '.join(hidden)}: -o json shows all")


def print_fields(fields: Mapping[str, str]) -> None:
    """Print names and values, one a line; empty values are left out."""
    shown = {name: value for name, value in fields.items() if value}
    width = max((len(name) for name in shown), default=0)
    for name, value in shown.items():
        print(f"{name:<{width}}  {plain(value)}")


def hint(text: str) -> None:
    """Print a line for people, to stderr."""
    print(plain(text), file=sys.stderr, flush=True)
