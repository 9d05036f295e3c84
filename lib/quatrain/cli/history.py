"""`job metrics|rollouts|events`: what a job has done."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer

from quatrain.cli.jobs import JobId
from quatrain.cli.output import (
    Format,
    Output,
    hint,
    number,
    one_line,
    plain,
    print_data,
    print_json,
    print_names,
    print_table,
)
from quatrain.cli.plots import plot
from quatrain.cli.progress import WATCHED
from quatrain.cli.tables import Column
from quatrain.client import Client, Event, Rollout
from quatrain.client.asynchronous import Rows

Step = Annotated[int | None, typer.Option(min=0, help="Step; without one the newest.")]


ENDS = {"stop": "ended", "length": "cut at max_new_tokens"}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(metrics)
    app.command()(rollouts)
    app.command()(events)


def metrics(
    job: JobId,
    stage: Annotated[str, typer.Option(help="sft, reward or ppo.")] = "ppo",
    names: Annotated[str, typer.Option(help="Only these metrics, separated by commas.")] = "",
    plots: Annotated[str, typer.Option("--plot", help="Plot these metrics, separated by commas.")] = "",
    from_step: Annotated[int, typer.Option("--from", help="First step; -1: with the evaluation before it.")] = 0,
    to_step: Annotated[int, typer.Option("--to", min=0, help="Last step; 0: to the end.")] = 0,
    output: Output = Format.table,
) -> None:
    """Show the metrics of a job, one row a step.

    Example: quatrain job metrics JOB --plot reward/score_mean,kl/ref_seq
    """
    wanted = [name.strip() for name in (plots or names).split(",") if name.strip()]
    with Client() as client:
        rows = client.metrics(job, stage=stage, names=wanted, from_step=from_step, to_step=to_step)
    known = list(dict.fromkeys(name for row in rows for name in row if name not in ("stage", "step", "attempt")))
    for name in wanted:
        if all(row.get(name) is None for row in rows):
            hint(f"{name} has no value in these steps; `-o name` lists the metrics there are")
    if plots and output is Format.table:
        for name in wanted:
            print(plot(name, [row["step"] for row in rows], [row.get(name) for row in rows]))
    elif output is Format.name:
        print_names(known)
    elif output is Format.table:
        _metrics_table(rows, wanted or _main_metrics(stage, known))
        if not wanted and len(known) > len(_main_metrics(stage, known)):
            hint(f"{len(known)} metrics a step: -o json shows all, -o name their names, --names A,B some")
    else:
        print_data(rows, output)


def rollouts(
    job: JobId,
    step: Step = None,
    worst: Annotated[int, typer.Option(min=0, help="The N samples with the lowest scores.")] = 0,
    best: Annotated[int, typer.Option(min=0, help="The N samples with the highest scores.")] = 0,
    limit: Annotated[int, typer.Option(min=0, help="Most samples; 0: all.")] = 0,
    evaluation: Annotated[bool, typer.Option("--eval", help="Samples of the evaluation at that step.")] = False,
    output: Output = Format.table,
) -> None:
    """Show the samples of a step.

    Example: quatrain job rollouts JOB --step 40 --worst 5
    """
    found: list[Rollout] = []
    with Client() as client:
        for order, count in (("score", worst), ("-score", best)):
            if count:
                found += client.rollouts(job, step=step, evaluation=evaluation, limit=count, order_by=order)
        if not worst and not best:
            found = client.rollouts(job, step=step, evaluation=evaluation, limit=limit)
    if output is Format.name:
        print_names(rollout.id for rollout in found)
    elif output is Format.table:
        _print_rollouts(found)
    else:
        print_data(found, output)


def events(
    job: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as they happen (JSON: one a line).")] = False,
    after: Annotated[int, typer.Option(min=0, help="Only events after this revision.")] = 0,
    output: Output = Format.table,
) -> None:
    """Show the durable event log of a job."""
    with Client() as client:
        found = client.events(job, after_revision=after)
        if not follow:
            _print_events(found, output)
            return
        for event in _following(client, job, found, after):
            if output is Format.table:
                print(_event_line(event), flush=True)
            elif output is Format.name:
                print(plain(event.type), flush=True)
            else:
                print_json(event, line=True)


def _following(client: Client, job: str, found: Sequence[Event], after: int) -> Iterable[Event]:
    yield from found
    revision = found[-1].revision if found else after
    for update in client.watch(job, after_revision=revision):
        if update.event is not None and update.revision > revision:
            yield update.event


def _print_events(found: Sequence[Event], output: Format) -> None:
    if output is Format.name:
        print_names(event.type for event in found)
    elif output is Format.table:
        for event in found:
            print(_event_line(event))
    else:
        print_data(found, output)


def _event_line(event: Event) -> str:
    data = "  ".join(f"{name}={_brief(value)}" for name, value in event.data.items() if value not in (None, ""))
    return f"{event.revision:>6}  {event.time}  {event.type:<18}  {plain(event.actor)}  {data}".rstrip()


def _brief(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{len(value)} values}}"
    return number(value) if isinstance(value, float) else one_line(str(value), 80)


def _metrics_table(rows: Rows, names: Sequence[str]) -> None:
    shown = [[str(row["step"]), *(number(row.get(name)) for name in names)] for row in rows]
    # The first metric stays; the others disappear from the right.
    columns = [Column(name, gives_way=len(names) - at) if at else Column(name) for at, name in enumerate(names)]
    print_table(["step", *columns], shown)


def _main_metrics(stage: str, known: Sequence[str]) -> list[str]:
    main = [name for _, name in WATCHED.get(stage, ()) if name in known]
    return main or list(known[:6])


def _print_rollouts(found: Sequence[Rollout]) -> None:
    for rollout in found:
        terms = "  ".join(f"{name} {number(value)}" for name, value in rollout.terms.items())
        gold = f"  gold {number(rollout.gold)}" if rollout.gold is not None else ""
        status = "" if rollout.status == "rollout" else f"  {rollout.status} {rollout.reason}".rstrip()
        where = f"step {rollout.step}  prompt {rollout.prompt_index}  sample {rollout.sample_index}"
        # A term may be called "length", too, so the reason of the end is a phrase.
        end = ENDS.get(rollout.finish_reason, rollout.finish_reason)
        head = "  ".join(part for part in (f"score {number(rollout.score)}{gold}", where, end, terms) if part)
        print(plain(head + status))
        print("  > " + plain(rollout.prompt).strip().replace("\n", "\n  > "))
        print("    " + plain(rollout.completion).strip().replace("\n", "\n    "))
        print()
