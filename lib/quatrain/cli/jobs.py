"""`job submit|list|get|watch|wait`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from quatrain.cli.failures import outcome_code
from quatrain.cli.job_page import print_job, steps_of, url_of
from quatrain.cli.output import (
    Format,
    ListFormat,
    ListOutput,
    Output,
    age,
    document,
    hint,
    print_data,
    print_fields,
    print_json,
    print_names,
    print_table,
)
from quatrain.cli.tables import Column
from quatrain.cli.watching import show_lines, show_live, show_ndjson
from quatrain.client import Client, Job

JobId = Annotated[str, typer.Argument(help="Id of the job.", metavar="JOB")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="One field: ppo.kl.coef=0.1; repeat.")
]
NewJobId = Annotated[str, typer.Option(help="Id of the new job; without one the server makes one.")]
RequestId = Annotated[str, typer.Option(help="The same request id twice gives one job.")]


JOB_COLUMNS = (
    Column("ID"),
    Column("NAME", gives_way=4, least=8),
    Column("STATE"),
    Column("STAGE", gives_way=1),
    Column("STEP", gives_way=3),
    Column("AGE", gives_way=2),
    Column("CREATED", wide=True),
    Column("CHANGED", wide=True),
    Column("OWNER", wide=True),
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(submit)
    app.command("list")(list_jobs)
    app.command()(get)
    app.command()(watch)
    app.command()(wait)


def submit(
    file: Annotated[str, typer.Argument(help="Job spec, YAML or JSON; - reads it from stdin.", metavar="FILE")],
    overrides: Overrides = None,
    job_id: NewJobId = "",
    request_id: RequestId = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, start nothing.")] = False,
    show_resolved: Annotated[
        bool, typer.Option("--show-resolved", help="Print the spec with every default and digest.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the job to its end and exit with its outcome.")] = False,
    output: Output = Format.table,
) -> None:
    """Check a spec, upload what it names by path, and start the job.

    Example: quatrain job submit job.yaml --set ppo.kl.coef=0.1 --wait
    """
    spec: Path | str = sys.stdin.read() if file == "-" else Path(file)
    with Client() as client:
        job = client.submit(
            spec, overrides=overrides or (), job_id=job_id, request_id=request_id, validate_only=dry_run
        )
        for warning in job.warnings:
            hint(f"warning: {warning}")
        if dry_run:
            _print_checked(job, output, show_resolved=show_resolved)
            return
        if show_resolved:
            print_data(job.resolved_spec, Format.json if output is Format.json else Format.yaml)
            hint(f"submitted: {job.id}")
        elif output is not Format.json or not wait:
            print_new(job, output)
        next_commands(job)
        if wait:
            _follow(client, job.id)
            finished = client.get(job.id)
            if output is Format.json and not show_resolved:
                print_json(finished)
            _finish(finished)


def list_jobs(
    state: Annotated[list[str] | None, typer.Option(help="Only jobs in this state, such as RUNNING; repeat.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most jobs that are shown.")] = 100,
    form: ListOutput = ListFormat.table,
) -> None:
    """List jobs, newest first."""
    output = form.plain
    with Client() as client:
        jobs = client.list(states=[each.upper() for each in state or ()], limit=limit)
    if output is Format.name:
        print_names(job.id for job in jobs)
    elif output is Format.table:
        print_table(JOB_COLUMNS, [_job_row(job) for job in jobs], wide=form is ListFormat.wide)
    else:
        # Lists carry no specs; a missing key says that better than null.
        shown = [{k: v for k, v in document(job).items() if k not in ("spec", "resolved_spec")} for job in jobs]
        print_data(shown, output)


def _job_row(job: Job) -> list[str]:
    times = [age(job.create_time), job.create_time, job.update_time]
    return [job.id, job.name, job.state, job.stage, steps_of(job), *times, job.owner]


def get(
    job: JobId,
    everything: Annotated[bool, typer.Option("--all", help="All metrics of the newest step.")] = False,
    output: Output = Format.table,
) -> None:
    """Show one job: what it is doing, warnings, and the metrics that matter most."""
    with Client() as client:
        found = client.get(job)
    if output is Format.name:
        print_names([found.id])
    elif output is Format.table:
        print_job(found, everything=everything)
    else:
        print_data(found, output)


def watch(job: JobId, output: Output = Format.table) -> None:
    """Follow a job to its end. Ctrl-C stops following; the job goes on.

    On a terminal a live panel, into a pipe one line a step, with -o json one JSON object a line.
    """
    with Client() as client:
        if output is Format.table:
            _follow(client, job, stdout=True)
        else:
            show_ndjson(client, job)


def wait(
    job: JobId,
    timeout: Annotated[float | None, typer.Option(min=0.0, help="Seconds; exit code 9 when they are over.")] = None,
    output: Output = Format.table,
) -> None:
    """Wait until a job has finished and exit with its outcome: 0 succeeded, 7 failed, 8 cancelled."""
    with Client() as client:
        finished = client.wait(job, timeout=timeout)
    if output is Format.name:
        print_names([finished.id])
    elif output is Format.table:
        print(finished.state)
    else:
        print_data(finished, output)
    _finish(finished)


def _follow(client: Client, job: str, *, stdout: bool = False) -> None:
    """Show a job live: on stdout for `watch`, whose data it is; else on stderr."""
    stream = sys.stdout if stdout else sys.stderr
    try:
        if stream.isatty():
            show_live(client, job, stderr=not stdout)
        else:
            show_lines(client, job, stream)
    except KeyboardInterrupt:
        hint(f"stopped following; the job goes on: quatrain job watch {job}")
        raise


def _finish(job: Job) -> None:
    code = outcome_code(job)
    if job.error is not None:
        hint(f"error: {job.error.reason}: {job.error.message}")
        hint(f"hint: quatrain job events {job.id}")
    raise typer.Exit(code)


def _print_checked(job: Job, output: Format, *, show_resolved: bool) -> None:
    if show_resolved:
        print_data(job.resolved_spec, Format.json if output is Format.json else Format.yaml)
    elif output in (Format.json, Format.yaml):
        print_data({"name": job.name, "warnings": list(job.warnings), "resolved_spec": job.resolved_spec}, output)
    # Nothing was made, so there is no name to print: whoever takes an id from here must not get another word.
    hint(f"ok: {job.name} can run; nothing was started")


def print_new(job: Job, output: Format) -> None:
    """Print a job that was just made."""
    if output is Format.name:
        print_names([job.id])
        sys.stdout.flush()
    elif output is Format.table:
        print_fields({"id": job.id, "name": job.name, "state": job.state, "url": url_of(job)})
    else:
        print_data(job, output)


def next_commands(job: Job) -> None:
    """Print hints on what to do with a new job."""
    hint(f"follow:  quatrain job watch {job.id}")
    hint(f"result:  quatrain job wait {job.id} && quatrain checkpoint download {job.id}")
    hint(f"stop:    quatrain job cancel {job.id}")
