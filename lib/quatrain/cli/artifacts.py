"""`checkpoint list|download`, `model import|list`."""

from pathlib import Path
from typing import Annotated

import typer

from quatrain.cli.jobs import JobId
from quatrain.cli.output import (
    Format,
    ListFormat,
    ListOutput,
    Output,
    hint,
    print_data,
    print_fields,
    print_names,
    print_table,
)
from quatrain.cli.tables import Column
from quatrain.client import Client, ModelRef
from quatrain.client.download_record import read_record

checkpoint = typer.Typer(no_args_is_help=True, help="What a job has saved.")
model = typer.Typer(no_args_is_help=True, help="Models that jobs can start from.")


@checkpoint.command("list")
def list_checkpoints(job: JobId, form: ListOutput = ListFormat.table) -> None:
    """List the checkpoints of a job, oldest first."""
    output = form.plain
    with Client() as client:
        found = client.checkpoints(job)
    if output is Format.name:
        print_names(f"{each.stage}@{each.step}" for each in found)
    elif output is Format.table:
        rows = [
            [each.stage, str(each.step), str(each.attempt), "yes" if each.pinned else "", _uri(each.policy)]
            for each in found
        ]
        columns = ("STAGE", "STEP", Column("ATTEMPT", 2), Column("PINNED", 3), Column("POLICY", 1, least=16))
        print_table(columns, rows, wide=form is ListFormat.wide)
    else:
        print_data(found, output)


@checkpoint.command()
def download(
    job: JobId,
    what: Annotated[str, typer.Option(help="model, reward_model, sft_model, or checkpoint with --step.")] = "",
    step: Annotated[int | None, typer.Option(min=0, help="The policy after this PPO step.")] = None,
    to: Annotated[Path | None, typer.Option(help="Folder; made if it is not there.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files of the same names in the folder.")] = False,
    output: Output = Format.table,
) -> None:
    """Download a model as a Hugging Face folder: checked, and resumed when it broke off.

    A folder that holds other files is refused without --force.

    Example: quatrain checkpoint download JOB --to my-model
    """
    wanted = what or ("checkpoint" if step is not None else "model")
    folder = to or Path(f"{job}-{wanted}" if step is None else f"{job}-step-{step}")
    before = read_record(folder)
    with Client() as client:
        paths = client.download(job, folder, what=wanted, step=step, force=force)
    files = [path.relative_to(folder).as_posix() for path in paths]
    if output in (Format.name, Format.table):
        print_names([str(folder)])
    else:
        print_data({"folder": str(folder), "files": files}, output)
    already = "it was there already: " if before is not None and before.finished and not force else ""
    hint(f"{already}{len(files)} files, every sha256 checked")
    opener = "AutoModelForSequenceClassification" if wanted == "reward_model" else "AutoModelForCausalLM"
    hint(f"open it: {opener}.from_pretrained({str(folder)!r})")


@model.command("import")
def import_model(
    folder: Annotated[
        str, typer.Argument(help="Hugging Face folder with safetensors, s3://BUCKET/PREFIX or hf://ORG/NAME.")
    ],
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
def list_models(form: ListOutput = ListFormat.table) -> None:
    """List the named models."""
    output = form.plain
    with Client() as client:
        found = client.list_models()
    if output is Format.name:
        print_names(f"models://{each.name}@{each.number}" for each in found)
    elif output is Format.table:
        columns = (Column("NAME", 2, least=12), "NUMBER", Column("URI", 1, least=16))
        rows = [[each.name, str(each.number), each.model.uri] for each in found]
        print_table(columns, rows, wide=form is ListFormat.wide)
    else:
        print_data(found, output)


def _uri(policy: ModelRef | None) -> str:
    return policy.uri if policy is not None else ""
