"""The commands and how they are grouped."""

import contextlib
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from quatrain.cli import artifacts, data, history, jobs, retention, rewards, spec, stack, steering, tokens

app = typer.Typer(
    name="quatrain",
    help="RLHF with PPO as a service: submit a job, follow it, take the model home.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(version("quatrain"))
        raise typer.Exit


@contextlib.contextmanager
def _token_from(path: Path) -> Iterator[None]:
    """Make a token file named on the command line go before the token of the environment."""
    before = {name: os.environ.pop(name, None) for name in ("QUATRAIN_TOKEN", "QUATRAIN_TOKEN_FILE")}
    os.environ["QUATRAIN_TOKEN_FILE"] = str(path)
    try:
        yield
    finally:
        del os.environ["QUATRAIN_TOKEN_FILE"]
        os.environ.update({name: value for name, value in before.items() if value is not None})


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help="File that holds the bearer token for the API.")
    ] = None,
) -> None:
    """Exit codes: 0 ok, 1 unexpected, 2 usage, 3 invalid spec or data, 4 not found, 5 permission, 6 server unreachable,
    7 job failed, 8 job cancelled, 9 wait timed out, 130 interrupted (the job goes on)."""
    if token_file is not None:
        context.with_resource(_token_from(token_file))


job = typer.Typer(no_args_is_help=True, help="Submit jobs, follow them, look into them.")
jobs.register(job)
steering.register(job)
history.register(job)
retention.register(job, artifacts.checkpoint)
app.add_typer(job, name="job")
app.add_typer(artifacts.checkpoint, name="checkpoint")
app.add_typer(artifacts.model, name="model")
app.add_typer(data.data, name="data")
app.add_typer(spec.spec, name="spec")
app.add_typer(rewards.reward, name="reward")
app.add_typer(tokens.token, name="token")
stack.register(app)
