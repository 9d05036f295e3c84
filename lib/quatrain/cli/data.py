"""`data validate|preview|stats|convert|upload`. All but the last need no server."""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from quatrain.cli.output import (
    Format,
    Output,
    console,
    hint,
    number,
    one_line,
    print_data,
    print_fields,
    print_names,
)
from quatrain.client import Client
from quatrain.data import (
    KNOWN_SETS,
    DataFiles,
    Description,
    Mapping,
    Reading,
    Record,
    Report,
    Statistics,
    asked,
    canonical_row,
    kind_of_row,
    kind_of_set,
    open_pairs,
    open_prompts,
    open_sft,
    read_files,
    token_parts,
)
from quatrain.errors import AlreadyExists, InvalidInput
from quatrain.jobspec.data_formats import FILE_FORMATS, LABEL_RULES
from quatrain.text import Tokenizer

T = TypeVar("T")

data = typer.Typer(no_args_is_help=True, help="Data files for jobs.")

Open = Callable[[DataFiles, Mapping], Reading[Any]]
READERS: dict[str, Open] = {"sft": open_sft, "preferences": open_pairs, "prompts": open_prompts}
SHOWN_DROPS = 20
PROGRESS_ROWS = 500

Source = Annotated[Path, typer.Argument(metavar="FILE", help="A data file, a folder of them, or a pattern in quotes.")]
Kind = Annotated[str, typer.Option("--as", help="sft, preferences or prompts; else by its columns.")]
RowFormat = Annotated[
    str | None, typer.Option(help="Format of the rows (hh-rlhf, shp ...) or of the files (csv ...); else by content.")
]
Columns = Annotated[
    list[str] | None, typer.Option("--column", metavar="CANONICAL=NAME", help="Rename a column; repeat.")
]
LabelRuleName = Annotated[
    str | None, typer.Option("--label-rule", help="What a label of two answers means, such as index-from-0 or name.")
]
Split = Annotated[str | None, typer.Option(help="Split of a set that has several, such as train.")]
ModelFolder = Annotated[Path | None, typer.Option("--tokenizer", help="Model folder, whose tokenizer is used.")]


@data.command()
def upload(file: Path, output: Output = Format.table) -> None:
    """Upload a data file and print the uri that specs can name. What is there already is not sent again."""
    with Client() as client:
        found = client.upload(file)
    if output in (Format.table, Format.name):
        print_names([found.uri])
    else:
        print_data(found, output)


@data.command()
def validate(  # noqa: PLR0913  the options of the command
    file: Source,
    kind: Kind = "",
    format: RowFormat = None,
    columns: Columns = None,
    label_rule: LabelRuleName = None,
    split: Split = None,
    tokenizer: ModelFolder = None,
    max_length: Annotated[int | None, typer.Option(min=1, help="Limit in tokens, to count what is cut.")] = None,
    held_out: Annotated[Path | None, typer.Option(help="Prompt file that must not overlap with this one.")] = None,
    output: Output = Format.table,
) -> None:
    """Read a data file as a job would and say what is in it: format, counts, dropped rows, examples.

    Needs no server. Exit code 3 when nothing in it can be used.
    """
    files, reading = _open(file, kind, format, columns, split, label_rule)
    kept_out = None if held_out is None else open_prompts(DataFiles.of(held_out))
    description = Description(_tokenizer(tokenizer), max_length=max_length, held_out=kept_out)
    for record in _with_progress(files, reading):
        description.see(record)
    report = description.add_to(reading.report())
    if output is Format.name:
        print_names([report.format])
    elif output is Format.table:
        _print_report(report, files)
    else:
        print_data(report, output)


@data.command()
def preview(  # noqa: PLR0913  the options of the command
    file: Source,
    kind: Kind = "",
    format: RowFormat = None,
    columns: Columns = None,
    label_rule: LabelRuleName = None,
    split: Split = None,
    tokenizer: ModelFolder = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows to show.")] = 3,
    output: Output = Format.table,
) -> None:
    """Show rows as a job reads them, whole. With --tokenizer, as the model sees them: one token after the other.

    Messages are rendered through the chat template; │ stands between tokens, and line breaks, tabs and other characters
    that are not seen are written out.
    """
    _, reading = _open(file, kind, format, columns, split, label_rule)
    loaded = _tokenizer(tokenizer)
    shown = [_parts(record, loaded) for record in itertools.islice(reading, rows)]
    if output in (Format.table, Format.name):
        for index, parts in enumerate(shown):
            if index:
                print()
            print(f"line {parts['line']}")
            for name, text in parts.items():
                if name != "line":
                    print(f"  {name}:")
                    print(f"    {text}")
    else:
        print_data(shown, output)
    hint(f"format {reading.format}" + ("" if loaded else "; --tokenizer MODEL shows the tokens"))


@data.command()
def stats(
    file: Source,
    kind: Kind = "",
    format: RowFormat = None,
    columns: Columns = None,
    label_rule: LabelRuleName = None,
    split: Split = None,
    tokenizer: ModelFolder = None,
    output: Output = Format.table,
) -> None:
    """Count what is in a data file: lengths, duplicates, near-duplicates, margins, how often the longer answer wins."""
    files, reading = _open(file, kind, format, columns, split, label_rule)
    statistics = Statistics(_tokenizer(tokenizer))
    for record in _with_progress(files, reading):
        statistics.see(record)
    figures = statistics.to_json(reading.seen)
    if output in (Format.table, Format.name):
        _print_figures(figures)
    else:
        print_data(figures, output)
    _print_warnings(reading.report())


@data.command()
def convert(
    file: Source,
    to: Annotated[Path, typer.Option("--to", help="JSON Lines file to write.")],
    kind: Kind = "",
    format: RowFormat = None,
    columns: Columns = None,
    label_rule: LabelRuleName = None,
    split: Split = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write the usable rows in the canonical form, one JSON object a line, which a job reads without any guess."""
    if to.exists() and not force:
        raise AlreadyExists(f"{to} is there already: choose another name, or write over it with --force")
    files, reading = _open(file, kind, format, columns, split, label_rule)
    with to.open("w", encoding="utf-8") as target:
        for record in _with_progress(files, reading):
            target.write(json.dumps(canonical_row(record), ensure_ascii=False) + "\n")
    print_names([str(to)])
    report = reading.report()
    hint(f"{report.kept} of {report.rows} rows, format {report.format}")
    _print_warnings(report)


def _open(
    file: Path,
    kind: str,
    format: str | None,
    columns: list[str] | None,
    split: str | None,
    label_rule: str | None = None,
) -> tuple[DataFiles, Reading[Any]]:
    renamed = dict(_column(each) for each in columns or ())
    if kind and kind not in READERS:
        raise InvalidInput(f"--as {kind!r}: a data file is one of {', '.join(READERS)}")
    if label_rule is not None and label_rule not in LABEL_RULES:
        raise InvalidInput(f"--label-rule {label_rule!r}: a rule is one of {', '.join(LABEL_RULES)}")
    if format is not None and format not in (*FILE_FORMATS, *KNOWN_SETS):
        raise InvalidInput(f"--format {format!r}: a format is one of {', '.join((*FILE_FORMATS, *KNOWN_SETS))}")
    files, said = asked(DataFiles.of(file, split), format, renamed, label_rule)
    return files, READERS[kind or _kind(files, said)](files, said)


def _kind(files: DataFiles, said: Mapping) -> str:
    """Return sft, preferences or prompts: what the set that is named, or the first row, looks like."""
    if said.name is not None:
        return kind_of_set(said.name)
    _, first = next(iter(read_files(files, said.columns, [])), (0, {}))
    return kind_of_row(first)


def _column(text: str) -> tuple[str, str]:
    canonical, equals, name = text.partition("=")
    if not canonical or not equals or not name:
        raise InvalidInput(f"--column {text!r} is not of the form CANONICAL=NAME, such as prompt=question")
    return canonical, name


def _tokenizer(folder: Path | None) -> Tokenizer | None:
    return None if folder is None else Tokenizer.load(folder)


def _with_progress(files: DataFiles, records: Iterable[T]) -> Iterator[T]:
    """Yield the records, with a bar on a terminal that shows how much of the files is read."""
    out = console(stderr=True)
    if not out.is_terminal:
        yield from records
        return
    columns = (TextColumn("reading"), BarColumn(), TextColumn("{task.percentage:.0f} %  {task.fields[rows]} rows"))
    with Progress(*columns, TimeRemainingColumn(), console=out, transient=True) as progress:
        task = progress.add_task("", total=files.bytes, rows=0)
        for count, record in enumerate(records, 1):
            if count % PROGRESS_ROWS == 0:
                progress.update(task, completed=files.bytes_read, rows=count)
            yield record


def _parts(record: Record, tokenizer: Tokenizer | None) -> dict[str, str]:
    """Return the parts of a record as texts that show every character; with a tokenizer, every token."""
    if tokenizer is None:
        return {"line": str(record.line)} | {
            name: visible(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
            for name, value in canonical_row(record).items()
        }
    parts = token_parts(record, tokenizer)
    return {"line": str(record.line)} | {
        f"{name} ({len(ids)} tokens)": "│".join(map(visible, tokenizer.pieces(ids))) for name, ids in parts.items()
    }


def visible(text: str) -> str:
    """Return the text on one line with every character seen: line breaks, tabs and invisible ones written out."""
    marks = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "│": "\\u2502"}
    return "".join(
        marks.get(c) or (c if c.isprintable() else f"\\u{ord(c):04x}" if ord(c) < 65536 else f"\\U{ord(c):08x}")
        for c in text
    )


def _print_report(report: Report, files: DataFiles) -> None:
    print_fields(
        {
            "format": report.format,
            "rows": str(report.rows),
            "kept": str(report.kept),
            "dropped": str(report.dropped_count),
            "duplicates": str(report.duplicates),
            "columns": ", ".join(report.columns),
            "truncated": "" if report.truncated_share is None else f"{report.truncated_share:.1%}",
            "overlap": "" if report.overlap is None else str(report.overlap),
        }
    )
    for drop in report.dropped[:SHOWN_DROPS]:
        print(f"  {files.place(drop.line)}: {one_line(drop.reason, 200)}")
    if report.dropped_count > SHOWN_DROPS:
        print(f"  and {report.dropped_count - SHOWN_DROPS} more; -o json lists the first {len(report.dropped)}")
    for name, lengths in (report.lengths or {}).items():
        _print_summary(f"tokens of {name}", lengths)
    for example in report.examples:
        print()
        print_fields({name: one_line(str(value), 200) for name, value in example.items()})
    _print_warnings(report)


def _print_figures(figures: dict[str, object]) -> None:
    unit = figures.pop("unit")
    lengths = figures.pop("lengths")
    plain = {
        name.replace("_", " "): f"{value:.1%}" if isinstance(value, float) else str(value)
        for name, value in figures.items()
        if not isinstance(value, dict) and value is not None
    }
    print_fields(plain)
    tables = {f"{unit} of {name}": each for name, each in lengths.items()} if isinstance(lengths, dict) else {}
    tables |= {name.replace("_", " "): value for name, value in figures.items() if isinstance(value, dict)}
    for name, each in tables.items():
        _print_summary(name, each)


def _print_summary(name: str, figures: dict[str, float]) -> None:
    print(f"{name}: " + "  ".join(f"{key} {number(value)}" for key, value in figures.items()))


def _print_warnings(report: Report) -> None:
    for warning in report.warnings:
        hint(f"warning: {warning}")
