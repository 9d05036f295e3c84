"""`job cancel|pause|resume|fork`: steering a job."""

from typing import Annotated

import typer

from quatrain.cli.jobs import JobId, NewJobId, Overrides, RequestId, next_commands, print_new
from quatrain.cli.output import Format, Output, hint, print_data, print_names
from quatrain.client import Client, Job

Reason = Annotated[str, typer.Option(help="Why, for the log.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (cancel, pause, resume, fork):
        app.command()(command)


def cancel(
    job: JobId,
    now: Annotated[bool, typer.Option("--now", help="At once, without finishing the step and a checkpoint.")] = False,
    reason: Reason = "",
    output: Output = Format.table,
) -> None:
    """Ask for the end of a job: after the running step and a checkpoint, or at once with --now. Twice is fine."""
    with Client() as client:
        found = client.cancel(job, now=now, reason=reason)
    _print_state(found, output)
    if output is Format.table and not found.finished:
        hint(f"the end is asked for; `quatrain job wait {found.id}` waits for it")
        if not now:
            hint("a step that takes too long, or never ends, is cut off with --now")


def pause(job: JobId, reason: Reason = "", output: Output = Format.table) -> None:
    """Ask for a pause of a job: after the running step and a checkpoint it gives its learner back. Twice is fine.

    Its id, its history and its place in the data stay; quatrain job resume JOB goes on.
    """
    with Client() as client:
        found = client.pause(job, reason=reason)
    _print_state(found, output)
    if output is Format.table and found.state != "PAUSED":
        hint(f"the pause is asked for; `quatrain job watch {found.id}` shows it, resume takes it back")


def resume(job: JobId, reason: Reason = "", output: Output = Format.table) -> None:
    """End the pause of a job: it goes on where it was. Twice is fine."""
    with Client() as client:
        found = client.resume(job, reason=reason)
    _print_state(found, output)


def fork(
    source: Annotated[
        str, typer.Argument(help="Id of the job, with @STEP for the checkpoint of a step.", metavar="JOB[@STEP]")
    ],
    overrides: Overrides = None,
    job_id: NewJobId = "",
    request_id: RequestId = "",
    output: Output = Format.table,
) -> None:
    """Start a new job from a PPO checkpoint of another one, with changed fields. The other one is left alone.

    Step numbers, prompt order and seeds go on; ppo.steps counts from the start of the first job.

    Example: quatrain job fork JOB@40 --set ppo.kl.coef=0.1 --set ppo.steps=200
    """
    job, at, step = source.partition("@")
    if at and not (step.isascii() and step.isdigit()):
        raise typer.BadParameter(f"{source!r} is not of the form JOB or JOB@STEP, such as my-job@40")
    with Client() as client:
        made = client.fork(
            job, step=int(step) if at else None, overrides=overrides or (), job_id=job_id, request_id=request_id
        )
    for warning in made.warnings:
        hint(f"warning: {warning}")
    print_new(made, output)
    next_commands(made)


def _print_state(job: Job, output: Format) -> None:
    if output is Format.name:
        print_names([job.id])
    elif output is Format.table:
        print(job.state)
    else:
        print_data(job, output)
