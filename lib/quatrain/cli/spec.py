"""`spec import`: a spec from another tool's options."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from quatrain.cli.output import Format, hint, print_data
from quatrain.errors import InvalidInput
from quatrain.jobspec.habits import TOOLS
from quatrain.jobspec.importing import import_options
from quatrain.jobspec.options import read_options

spec = typer.Typer(no_args_is_help=True, help="Job specs.")


class DocumentFormat(enum.StrEnum):
    """A format of a document."""

    yaml = "yaml"
    json = "json"


@spec.callback()
def root() -> None:
    """Make and check job specs."""


@spec.command("import")
def import_spec(
    tool: Annotated[str, typer.Argument(help="trl, openrlhf or verl.", metavar="TOOL")],
    file: Annotated[Path, typer.Argument(help="Its YAML file, or a script with its command.", metavar="FILE")],
    output: Annotated[DocumentFormat, typer.Option("--output", "-o", help="yaml or json.")] = DocumentFormat.yaml,
) -> None:
    """Write a spec that says what another tool's options say; stderr tells what became what. Needs no server.

    Example: quatrain spec import trl ppo.yaml -o yaml
    """
    if tool not in TOOLS:
        raise InvalidInput(f"{tool!r} is no tool whose options can be read: there are {', '.join(TOOLS)}")
    made = import_options(tool, read_options(file))
    print_data(made.document, Format(output.value))
    for title, lines in (("became", made.became), ("left out", made.left_out), ("to fill in", made.to_fill_in)):
        if lines:
            hint(f"{title}:")
        for line in lines:
            hint(f"  {line}")
    hint("next: fill in what is missing, then `quatrain job submit FILE --dry-run`")
