"""`token create`: a bearer token for the API, and its line for the file of tokens."""

import datetime
import os
from pathlib import Path
from typing import Annotated

import typer

from quatrain.cli.output import Format, Output, hint, print_data, print_fields, print_names
from quatrain.errors import InvalidInput
from quatrain.rpc.server.tokens import line_of, new_token, parse_tokens

token = typer.Typer(no_args_is_help=True, help="Make tokens for the API.")


@token.command()
def create(
    name: Annotated[str, typer.Option(help="Who the token stands for; owner of the jobs submitted with it.")],
    role: Annotated[str, typer.Option(help="viewer, submitter or admin.")],
    tenant: Annotated[
        list[str] | None, typer.Option(help="Others whose jobs the token may read, '*' for everybody's; repeat.")
    ] = None,
    days: Annotated[int | None, typer.Option(min=1, max=36500, help="Days until it expires; without it never.")] = None,
    file: Annotated[Path | None, typer.Option(help="File of tokens to which the line is added.")] = None,
    output: Output = Format.table,
) -> None:
    """Make a token. It is shown once; the server's file of tokens (auth.tokens_file) holds only its hash.

    Example: quatrain token create --name ana --role submitter --file tokens.yaml
    """
    expires = None
    if days is not None:
        expires = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    made, entry = new_token(name, role, tenants=tenant or (), expires=expires)
    line = line_of(entry)
    if file is not None:
        _add(file, line)
    if output is Format.name:
        print_names([made])
    elif output is Format.table:
        print_fields({"token": made, "line": line})
    else:
        print_data({"token": made, "entry": entry, "line": line}, output)
    if file is None:
        hint("add the line to the server's file of tokens; the token itself is not shown again")
    else:
        hint(f"added to {file}; the token itself is not shown again")


def _add(file: Path, line: str) -> None:
    """Add a line, whole or not at all: a server may read the file at any moment."""
    try:
        before = file.read_text(encoding="utf-8") if file.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{file} cannot be read: {error}") from error
    text = f"{before.rstrip()}\n{line}\n".lstrip()
    parse_tokens(text.encode(), f"{file} with the new line")
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        temporary.touch(mode=0o600)
        if file.exists():
            temporary.chmod(file.stat().st_mode & 0o777)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(file)
    except OSError as error:
        raise InvalidInput(f"{file} cannot be written: {error.strerror}") from error
