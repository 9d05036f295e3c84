"""The example from nothing to a result: data, base model, local stack, one job (SFT, reward model, PPO).

    make demo        (or: .venv/bin/python examples/courteous-replies/demo.py [--set ppo.steps=20 ...])

The stack is left running. Exit code 0 only if the job succeeded and the held-out gold reward rose by more than three
standard errors.
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import make_data
from gold import told
from rich.console import Console
from rich.table import Table
from rich.text import Text

from quatrain.cli.output import console, plain
from quatrain.cli.watching import show_lines, show_live
from quatrain.client import Client, Event, Job, Rollout
from quatrain.local.home import state_folder
from quatrain.local.stack import up

HERE = Path(__file__).resolve().parent
BASE_MODEL = HERE / "base-model"
SHOWN = 5
# The result must stand out from chance by this many standard errors.
STANDARD_ERRORS = 3.0
WIDTH = 110


@dataclass(frozen=True)
class Change:
    """A mean over the held-out prompts before and after PPO; `error` is the standard error of the paired difference."""

    before: float
    after: float
    error: float

    @property
    def stands_out(self) -> bool:
        """True when the rise is more than chance."""
        return self.after - self.before > STANDARD_ERRORS * self.error

    def __str__(self) -> str:
        gain = self.after - self.before
        return f"{self.before:7.3f} -> {self.after:7.3f}   ({gain:+.3f}, standard error {self.error:.3f})"


def prepare() -> None:
    """Makes the data and the base model where they are missing."""
    if not all((HERE / f"{name}.jsonl").exists() for name in make_data.FILES):
        say("writing the data")
        make_data.make(HERE)
    if not (BASE_MODEL / "model.safetensors").exists():
        say("making the tokenizer and the base model")
        import make_model  # Brings in torch, which takes seconds and is needed this once.

        make_model.make(HERE, BASE_MODEL)


def run_job(client: Client, overrides: Sequence[str]) -> Job:
    """Submits the job and shows its progress until it has ended."""
    job = client.submit(HERE / "spec.yaml", overrides=overrides)
    say(f"job {job.id}: Ctrl-C stops the watching, not the job")
    if sys.stdout.isatty():
        show_live(client, job.id, stderr=False)
    else:
        show_lines(client, job.id, sys.stdout)
    return client.get(job.id)


def change(before: Sequence[float | None], after: Sequence[float | None]) -> Change:
    """Compares two evaluations prompt by prompt; prompts without a value on either side are left out."""
    pairs = [(b, a) for b, a in zip(before, after, strict=True) if b is not None and a is not None]
    error = statistics.stdev(a - b for b, a in pairs) / math.sqrt(len(pairs))
    return Change(statistics.fmean(b for b, _ in pairs), statistics.fmean(a for _, a in pairs), error)


def stage_seconds(events: Sequence[Event]) -> dict[str, float]:
    """Seconds of each stage by the times of the log; evaluations are counted apart from PPO."""
    seconds: dict[str, float] = {}
    started: dict[str, datetime] = {}
    last = None
    for event in events:
        now, stage = datetime.fromisoformat(event.time), str(event.data.get("stage", ""))
        if event.type == "stage_started":
            started.setdefault(stage, now)
        elif event.type == "stage_completed":
            seconds[stage] = (now - started[stage]).total_seconds()
        elif event.type == "evaluated" and last is not None:
            # An evaluation begins when the event before it is written.
            seconds["evaluation"] = seconds.get("evaluation", 0.0) + (now - last).total_seconds()
        last = now
    if "ppo" in seconds:
        seconds["ppo"] -= seconds.get("evaluation", 0.0)
    return seconds


def before_and_after(before: Sequence[Rollout], after: Sequence[Rollout]) -> Table:
    """The first few held-out prompts with their replies before and after PPO."""
    table = Table(show_lines=True, width=WIDTH)
    for title in ("message", "reply before PPO", "reply after PPO"):
        table.add_column(title, ratio=1)
    for old, new in list(zip(before, after, strict=True))[:SHOWN]:
        message = old.prompt.rpartition("Human:")[2].removesuffix("Assistant:")
        table.add_row(*(Text(plain(text.strip())) for text in (message, old.completion, new.completion)))
    return table


def repeating(rollouts: Sequence[Rollout]) -> int:
    """How many replies say a sentence again."""
    return sum(told(rollout.completion)[1] > 0 for rollout in rollouts)


def report(client: Client, job: Job, out: Console) -> bool:
    """Prints what the job did and where the model lies; True when the gold reward rose beyond chance."""
    before = client.rollouts(job.id, evaluation=True, step=0)
    after = client.rollouts(job.id, evaluation=True, step=job.step)
    gold = change([one.gold for one in before], [one.gold for one in after])
    score = change([one.score for one in before], [one.score for one in after])
    last = client.metrics(job.id, names=["kl/ref_seq", "kl/ref_seq_se"])[-1]
    folder = HERE / "result" / job.id
    client.download(job.id, folder)
    out.print(before_and_after(before, after))
    out.print(f"held-out prompts          {len(before)}")
    out.print(f"replies that repeat       {repeating(before)} -> {repeating(after)}")
    out.print(f"gold reward               {gold}")
    out.print(f"reward-model score        {score}")
    kl, kl_error = last["kl/ref_seq"], last["kl/ref_seq_se"]
    out.print(f"KL to the reference       {kl:.2f} nats a reply (standard error {kl_error:.2f})")
    times = [f"{stage} {seconds:.0f} s" for stage, seconds in stage_seconds(client.events(job.id)).items()]
    out.print(f"time                      {', '.join(times)}")
    out.print(f"model                     {folder}")
    return gold.stands_out


def say(text: str) -> None:
    """One line of progress."""
    print(text, flush=True)


def say_next(job: str) -> None:
    """The three commands that come next, and how to end the stack."""
    say("\nnext:")
    say(f"  .venv/bin/quatrain job metrics {job} --plot reward/score_mean,kl/ref_seq")
    say(f"  .venv/bin/quatrain job rollouts {job} --worst 5")
    say("  .venv/bin/quatrain job submit examples/courteous-replies/spec.yaml --set ppo.kl.coef=0.2 --wait")
    say("the local stack is still running; `make down` ends it and keeps its data")


def main() -> int:
    """0 when the job succeeded and the gold reward rose beyond chance."""
    parser = argparse.ArgumentParser(description="Runs the example on the local stack.")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="PATH=VALUE")
    overrides: list[str] = parser.parse_args().overrides
    began = time.monotonic()
    prepare()
    home = state_folder()
    say(f"starting the local stack in {home}")
    up(home)
    say(f"the stack serves after {time.monotonic() - began:.0f} s")
    with Client() as client:
        job = run_job(client, overrides)
        out = console() if sys.stdout.isatty() else Console(width=WIDTH, highlight=False, markup=False)
        risen = job.state == "SUCCEEDED" and report(client, job, out)
    say(f"whole demo                {time.monotonic() - began:.0f} s")
    if job.state == "SUCCEEDED":
        say(f"gold reward rose by more than {STANDARD_ERRORS:g} standard errors: {'yes' if risen else 'NO'}")
    else:
        say(f"the job ended as {job.state}{f': {job.error.message}' if job.error else ''}")
    say_next(job.id)
    return 0 if risen else 1


if __name__ == "__main__":
    sys.exit(main())
