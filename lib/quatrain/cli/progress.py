"""The progress of a job as its updates tell it; `panel` shows it live, a pipe gets it as lines."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from quatrain.cli.output import number, one_line
from quatrain.client import Job, Rollout, Update

# Label and metric of what is shown while a stage runs; a stage without an entry shows its first metrics.
WATCHED: dict[str, tuple[tuple[str, str], ...]] = {
    "ppo": (
        ("score", "reward/score_mean"),
        ("KL", "kl/ref_seq"),
        ("entropy", "policy/entropy"),
        ("clip fraction", "policy/clip_fraction"),
        ("length", "completions/length_mean"),
    ),
}
FIRST_METRICS = 4
# The pace of so many newest steps gives the estimate of the time that is left.
PACE_STEPS = 20

Row = dict[str, float | None]


@dataclass
class Progress:
    """A job as it was seen last, its metrics by step, and when steps were finished (this machine's clock)."""

    job: Job
    clock: Callable[[], float] = time.monotonic
    stage: str = ""
    rows: dict[int, Row] = field(default_factory=dict)
    finished_at: list[float] = field(default_factory=list)
    completions: list[Rollout] = field(default_factory=list)

    def take(self, update: Update) -> list[str]:
        """Take in an update and return the lines that tell it to a person; none when it is not worth one."""
        before, self.job = self.job, update.job
        if self.job.stage != self.stage:
            self.stage, self.rows, self.finished_at = self.job.stage, {}, []
        event = update.event
        if event is None:
            conditions = [f"{name}: {one_line(text, 200)}" for name, text in sorted(self.job.conditions.items())]
            warnings = [f"warning: {one_line(text, 300)}" for text in dict.fromkeys(self.job.warnings)]
            phase = [one_line(self.job.phase, 200)] if self.job.phase else []
            return [_state_line(self.job), *phase, *conditions, *warnings]
        if event.type in ("step_completed", "evaluated"):
            step, values = int(event.data.get("step", 0)), event.data.get("metrics") or {}
            self.rows.setdefault(step, {}).update(values)
            if event.type == "evaluated":
                return [f"{self.stage} evaluation at step {step}  {_pairs(values)}"]
            self.finished_at.append(self.clock())
            return [self.step_line(step)]
        if event.type == "stage_started":
            return [f"{self.job.stage} starts: {self.job.total_steps or '?'} steps"]
        if event.type == "attempt_failed":
            return [f"attempt failed: {one_line(str(event.data.get('message', '')), 200)}"]
        if event.type == "condition" and event.data.get("name") == "phase":
            return [one_line(self.job.phase, 200)] if self.job.phase else []
        if event.type == "condition":
            return [f"{event.data.get('name')}: {one_line(str(event.data.get('message') or 'over'), 200)}"]
        if self.job.state != before.state or self.job.finished:
            return [_state_line(self.job)]
        return []

    def shown(self) -> list[tuple[str, str]]:
        """Return label and metric name of what is worth showing in this stage."""
        if self.stage in WATCHED:
            return list(WATCHED[self.stage])
        names = list(self.rows[max(self.rows)]) if self.rows else []
        return [(name.rpartition("/")[2].replace("_", " "), name) for name in names[:FIRST_METRICS]]

    def series(self, name: str) -> list[float | None]:
        """Return the values of a metric in the order of steps."""
        return [self.rows[step].get(name) for step in sorted(self.rows)]

    def seconds_left(self) -> float | None:
        """Return about how many seconds the stage still takes, by the pace of the newest steps; None at first."""
        times = self.finished_at[-PACE_STEPS:]
        if len(times) < 2 or not self.job.total_steps:
            return None
        return (times[-1] - times[0]) / (len(times) - 1) * max(0, self.job.total_steps - self.job.step)

    def step_line(self, step: int) -> str:
        """Return one step on one line."""
        total = f"/{self.job.total_steps}" if self.job.total_steps else ""
        row = self.rows.get(step, {})
        values = "  ".join(f"{label} {number(row[name])}" for label, name in self.shown() if name in row)
        left = self.seconds_left()
        eta = f"  ETA {duration(left)}" if left else ""
        return f"{self.stage} step {step}{total}  {values}{eta}".rstrip()


def duration(seconds: float) -> str:
    """Return seconds as 1h02m, 3m05s or 12s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


def _state_line(job: Job) -> str:
    where = f"  {job.stage} step {job.step}/{job.total_steps or '?'}" if job.stage else ""
    why = f"  {job.error.reason}: {one_line(job.error.message, 300)}" if job.error else ""
    return f"{job.state}{where}{why}"


def _pairs(row: Row) -> str:
    return "  ".join(f"{name} {number(value)}" for name, value in row.items())
