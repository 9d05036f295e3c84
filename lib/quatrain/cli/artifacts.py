"""`checkpoint list|download`, `model import|list`, `data validate|upload`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from quatrain.cli.jobs import JobId
from quatrain.cli.output import (
    Format,
    Output,
    hint,
    number,
    one_line,
    print_data,
    print_fields,
    print_names,
    print_table,
)
from quatrain.client import Client, ModelRef
from quatrain.data import Record, Report, describe, load_pairs, load_prompts, load_sft, read_rows
from quatrain.errors import InvalidInput
from quatrain.text import Tokenizer

checkpoint = typer.Typer(no_args_is_help=True, help="What a job has saved.")
model = typer.Typer(no_args_is_help=True, help="Models that jobs can start from.")
data = typer.Typer(no_args_is_help=True, help="Data files for jobs.")

Loader = Callable[[Path, str | None, dict[str, str] | None], tuple[Sequence[Record], Report]]
LOADERS: dict[str, Loader] = {"sft": load_sft, "preferences": load_pairs, "prompts": load_prompts}


@checkpoint.command("list")
def list_checkpoints(job: JobId, output: Output = Format.table) -> None:
    """List the checkpoints of a job, oldest first."""
    with Client() as client:
        found = client.checkpoints(job)
    if output is Format.name:
        print_names(f"{each.stage}@{each.step}" for each in found)
    elif output is Format.table:
        rows = [
            [each.stage, str(each.step), str(each.attempt), "yes" if each.pinned else "", _uri(each.policy)]
            for each in found
        ]
        print_table(["STAGE", "STEP", "ATTEMPT", "PINNED", "POLICY"], rows)
    else:
        print_data(found, output)


@checkpoint.command()
def download(
    job: JobId,
    what: Annotated[str, typer.Option(help="model, reward_model, sft_model, or checkpoint with --step.")] = "",
    step: Annotated[int | None, typer.Option(min=0, help="The policy after this PPO step.")] = None,
    to: Annotated[Path | None, typer.Option(help="Folder; made if it is not there.")] = None,
    output: Output = Format.table,
) -> None:
    """Download a model as a Hugging Face folder: checked, and resumed when it broke off.

    Example: quatrain checkpoint download JOB --to my-model
    """
    wanted = what or ("checkpoint" if step is not None else "model")
    folder = to or Path(f"{job}-{wanted}" if step is None else f"{job}-step-{step}")
    with Client() as client:
        paths = client.download(job, folder, what=wanted, step=step)
    files = [path.relative_to(folder).as_posix() for path in paths]
    if output in (Format.name, Format.table):
        print_names([str(folder)])
    else:
        print_data({"folder": str(folder), "files": files}, output)
    hint(f"{len(files)} files, every sha256 checked")
    opener = "AutoModelForSequenceClassification" if wanted == "reward_model" else "AutoModelForCausalLM"
    hint(f"open it: {opener}.from_pretrained({str(folder)!r})")


@model.command("import")
def import_model(
    folder: Annotated[str, typer.Argument(help="Hugging Face folder with safetensors, or s3://BUCKET/PREFIX.")],
    name: Annotated[str, typer.Option(help="Name, for models://NAME in specs.")] = "",
    output: Output = Format.table,
) -> None:
    """Upload a model folder, or let the server read it from a bucket, and make it a model that specs can name."""
    with Client() as client:
        found = client.import_model(folder, name=name)
    if output is Format.name:
        print_names([found.model.uri])
    elif output is Format.table:
        entry = f"models://{found.name}@{found.number}" if found.name else ""
        print_fields({"uri": found.model.uri, "name": entry})
    else:
        print_data(found, output)


@model.command("list")
def list_models(output: Output = Format.table) -> None:
    """List the named models."""
    with Client() as client:
        found = client.list_models()
    if output is Format.name:
        print_names(f"models://{each.name}@{each.number}" for each in found)
    elif output is Format.table:
        print_table(["NAME", "NUMBER", "URI"], [[each.name, str(each.number), each.model.uri] for each in found])
    else:
        print_data(found, output)


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
def validate(
    file: Path,
    kind: Annotated[str, typer.Option("--as", help="sft, preferences or prompts; else by its columns.")] = "",
    format: Annotated[str | None, typer.Option(help="jsonl, json, parquet or csv; else by its name.")] = None,
    columns: Annotated[
        list[str] | None, typer.Option("--column", metavar="CANONICAL=NAME", help="Rename a column; repeat.")
    ] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="Model folder, to count tokens and render templates.")] = None,
    max_length: Annotated[int | None, typer.Option(min=1, help="Limit in tokens, to count what is cut.")] = None,
    held_out: Annotated[Path | None, typer.Option(help="Prompt file that must not overlap with this one.")] = None,
    output: Output = Format.table,
) -> None:
    """Read a data file as a job would and say what is in it: format, counts, dropped rows, examples.

    Needs no server. Exit code 3 when nothing in it can be used.
    """
    renamed = dict(_column(each) for each in columns or ())
    if kind and kind not in LOADERS:
        raise InvalidInput(f"--as {kind!r}: a data file is one of {', '.join(LOADERS)}")
    loader = LOADERS[kind or _kind(file, format, renamed)]
    records, report = loader(file, format, renamed)
    report = describe(
        report,
        records,
        Tokenizer.load(tokenizer) if tokenizer is not None else None,
        max_length=max_length,
        held_out=load_prompts(held_out)[0] if held_out is not None else None,
    )
    if output is Format.name:
        print_names([report.format])
    elif output is Format.table:
        _print_report(report)
    else:
        print_data(report, output)


def _kind(file: Path, format: str | None, columns: dict[str, str]) -> str:
    _, first = next(iter(read_rows(file, format, columns, [])), (0, {}))
    if "chosen" in first:
        return "preferences"
    return "sft" if "completion" in first or "messages" in first else "prompts"


def _column(text: str) -> tuple[str, str]:
    canonical, equals, name = text.partition("=")
    if not canonical or not equals or not name:
        raise InvalidInput(f"--column {text!r} is not of the form CANONICAL=NAME, such as prompt=question")
    return canonical, name


def _print_report(report: Report) -> None:
    print_fields(
        {
            "format": report.format,
            "rows": str(report.rows),
            "kept": str(report.kept),
            "dropped": str(len(report.dropped)),
            "duplicates": str(report.duplicates),
            "columns": ", ".join(report.columns),
            "truncated": "" if report.truncated_share is None else f"{report.truncated_share:.1%}",
            "overlap": "" if report.overlap is None else str(report.overlap),
        }
    )
    for drop in report.dropped[:20]:
        print(f"  line {drop.line}: {one_line(drop.reason, 200)}")
    if len(report.dropped) > 20:
        print(f"  and {len(report.dropped) - 20} more; -o json lists all")
    for name, lengths in (report.lengths or {}).items():
        print(f"tokens of {name}: " + "  ".join(f"{key} {number(value)}" for key, value in lengths.items()))
    for example in report.examples:
        print()
        print_fields({name: one_line(str(value), 200) for name, value in example.items()})
    for warning in report.warnings:
        hint(f"warning: {warning}")


def _uri(policy: ModelRef | None) -> str:
    return policy.uri if policy is not None else ""
