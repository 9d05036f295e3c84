"""Follows a job for a person or a program. To stop following never stops the job."""

import time
from collections.abc import Iterator
from typing import TextIO

from rich.live import Live

from quatrain.cli.output import console, document, plain, print_json
from quatrain.cli.panel import COMPLETIONS, panel
from quatrain.cli.progress import Progress
from quatrain.client import Client, Update
from quatrain.errors import NotFound, WrongState

# Seconds between requests for the newest completions: people cannot read faster, and a step may take milliseconds.
COMPLETIONS_EVERY = 2.0


def show_live(client: Client, job: str, *, stderr: bool) -> None:
    """Show a panel that changes in place, until the job has finished."""
    progress: Progress | None = None
    refreshed = 0.0
    with Live(console=console(stderr=stderr), refresh_per_second=4, transient=False) as live:
        for update in client.watch(job):
            if progress is None:
                progress = started(client, update)
            progress.take(update)
            if update.job.stage == "ppo" and time.monotonic() - refreshed > COMPLETIONS_EVERY:
                refreshed = time.monotonic()
                _refresh_completions(client, progress)
            live.update(panel(progress))


def show_lines(client: Client, job: str, stream: TextIO) -> None:
    """Print one line a step, and one for each change of state."""
    progress: Progress | None = None
    for update in client.watch(job):
        if progress is None:
            progress = Progress(update.job, stage=update.job.stage)
        for line in progress.take(update):
            print(plain(line), file=stream, flush=True)


def show_ndjson(client: Client, job: str) -> None:
    """Print one JSON object a line: {"revision", "event" (null: the job as it is now), "job"}."""
    for update in client.watch(job):
        print_json(ndjson(update), line=True)


def ndjson(update: Update) -> dict[str, object]:
    """Return the object of one update; the job without its specs."""
    job = {name: value for name, value in document(update.job).items() if name not in ("spec", "resolved_spec")}
    return {"revision": update.revision, "event": document(update.event), "job": job}


def started(client: Client, update: Update) -> Progress:
    """Return the progress of a job that may have begun long ago, with the metrics of its steps so far."""
    progress = Progress(update.job, stage=update.job.stage)
    if update.job.stage:
        for row in client.metrics(update.job.id, stage=update.job.stage):
            progress.rows[row["step"]] = dict(_numbers(row))
    return progress


def _refresh_completions(client: Client, progress: Progress) -> None:
    try:
        progress.completions = client.rollouts(progress.job.id, limit=COMPLETIONS)
    except (NotFound, WrongState):
        progress.completions = []  # No step is sealed yet.


def _numbers(row: dict[str, float | None]) -> Iterator[tuple[str, float | None]]:
    return ((name, value) for name, value in row.items() if name not in ("stage", "step", "attempt"))
