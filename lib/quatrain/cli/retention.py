"""`checkpoint pin|delete` and `job delete`: what is kept and what is given up."""

from typing import Annotated

import typer

from quatrain.cli.jobs import JobId
from quatrain.cli.output import hint
from quatrain.client import Client

Step = Annotated[int, typer.Option(min=0, help="PPO step of the checkpoint; `quatrain checkpoint list` shows them.")]
Reason = Annotated[str, typer.Option(help="Why, for the log.")]


def register(job: typer.Typer, checkpoint: typer.Typer) -> None:
    """Add the commands."""
    checkpoint.command()(pin)
    checkpoint.command("delete")(delete_checkpoint)
    job.command("delete")(delete_job)


def pin(
    job: JobId,
    step: Step,
    off: Annotated[bool, typer.Option("--off", help="Lift the pin; the job's retention decides again.")] = False,
    reason: Reason = "",
) -> None:
    """Keep a checkpoint and its policy, whatever checkpoint.keep_last and the like say. Also for finished jobs.

    Example: quatrain checkpoint pin JOB --step 40 --reason "best so far"
    """
    with Client() as client:
        client.pin_checkpoint(job, step, pinned=not off, reason=reason)
    hint(f"the checkpoint of step {step} is {'no longer pinned' if off else 'pinned'}")


def delete_checkpoint(job: JobId, step: Step, reason: Reason = "") -> None:
    """Give a checkpoint up. Its data are deleted soon after; twice is fine.

    Refused: a pinned one, and the newest one of a job that has not ended.
    """
    with Client() as client:
        client.delete_checkpoint(job, step, reason=reason)
    hint(f"the checkpoint of step {step} is released; its data are deleted soon")


def delete_job(job: JobId, reason: Reason = "") -> None:
    """Delete the data of a finished job: checkpoints, policies, samples. Twice is fine.

    Its spec, its events and the models that it finished stay.
    """
    with Client() as client:
        client.delete(job, reason=reason)
    hint(f"{job} is deleted; its data go soon, `quatrain job events {job}` still tells its history")
