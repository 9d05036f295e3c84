"""The live panel: state, stage, progress, sparklines, the newest completions, and what is wrong now."""

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from quatrain.cli.output import number, one_line, plain
from quatrain.cli.plots import sparkline
from quatrain.cli.progress import Progress, duration

COMPLETIONS = 3
STATE_STYLES = {"RUNNING": "green", "SUCCEEDED": "bold green", "FAILED": "bold red", "CANCELLED": "yellow"}


def panel(progress: Progress) -> Panel:
    """Return the panel of a job: all that a person who watches it wants to see."""
    parts: list[RenderableType] = [_head(progress)]
    if progress.rows:
        parts += [Text(), _metrics(progress)]
    if progress.completions:
        parts += [Text(), _completions(progress)]
    notes = _notes(progress)
    if notes:
        parts += [Text(), *notes]
    job = progress.job
    title = Text(f"{job.name}  {job.id}")
    return Panel(Group(*parts), title=title, title_align="left", subtitle=Text("Ctrl-C leaves; the job goes on"))


def _head(progress: Progress) -> RenderableType:
    job = progress.job
    line = Text(job.state, style=STATE_STYLES.get(job.state, "cyan"))
    if job.stage:
        line.append(f"   {job.stage} {job.step}/{job.total_steps or '?'}", style="default")
    if job.phase:
        line.append(f"   {plain(job.phase)}", style="dim")
    left = progress.seconds_left()
    if left is not None and not job.finished:
        line.append(f"   ETA {duration(left)}", style="default")
    if job.attempt > 1:
        line.append(f"   attempt {job.attempt}", style="yellow")
    if not job.total_steps:
        return line
    return Group(line, ProgressBar(total=job.total_steps, completed=job.step, width=60))


def _metrics(progress: Progress) -> Table:
    table = Table.grid(padding=(0, 2))
    for label, name in progress.shown():
        values = progress.series(name)
        last = next((value for value in reversed(values) if value is not None), None)
        table.add_row(Text(label), Text(number(last)), Text(sparkline(values, 40), style="cyan"))
    return table


def _completions(progress: Progress) -> Table:
    table = Table.grid(padding=(0, 2))
    for rollout in progress.completions[-COMPLETIONS:]:
        text = Text(one_line(rollout.prompt, 44), style="dim")
        text.append(f"  {one_line(rollout.completion, 70)}", style="default")
        table.add_row(Text(number(rollout.score, 3)), text)
    return table


def _notes(progress: Progress) -> list[Text]:
    job = progress.job
    notes = [Text(f"{plain(name)}: {one_line(text, 200)}", style="yellow") for name, text in job.conditions.items()]
    notes += [Text(f"warning: {one_line(text, 200)}", style="yellow") for text in job.warnings]
    if job.error is not None:
        notes.append(Text(f"{job.error.reason}: {plain(job.error.message)}", style="red"))
    return notes
