"""A PPO job through the real local stack, and what its event log says about the time of each step."""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from bench.cases import BATCH, EPOCHS, Case
from bench.flops import Row
from bench.models import write_policy, write_reward_model
from quatrain.batches import read_batch
from quatrain.client import Client, Event
from quatrain.errors import RunFailed
from quatrain.json_values import JsonObject
from quatrain.local import stack
from quatrain.local.home import read_endpoint
from quatrain.local.state import read_record

# Variables that the user may have set; the measured stack must not use them.
FOREIGN = ("REDIS_URL", "S3_ENDPOINT", "S3_BUCKET", "QUATRAIN_ENDPOINT")


@dataclass(frozen=True)
class Step:
    """One PPO step: seconds from the end of the one before to its own end, its metrics, its real rows.

    `wall` on the clock, `cpu` of all processes of the stack together; the latter hardly depends on what else the
    machine does.
    """

    wall: float
    cpu: float
    metrics: dict[str, float | None]
    rows: list[Row]

    @property
    def completion_tokens(self) -> int:
        """Return the number of real completion tokens, end token included, counted once whatever the epochs."""
        return sum(row.completion for row in self.rows)

    def seconds(self, name: str) -> float:
        """Return the metric time/NAME, 0 where the step has none."""
        return self.metrics.get(f"time/{name}") or 0.0


def run_job(case: Case, steps: int, threads: int) -> list[Step]:
    """Start a stack, run the case for some steps and end the stack. Raises RunFailed when the job fails."""
    with tempfile.TemporaryDirectory(prefix="quatrain-bench-") as temporary:
        folder = Path(temporary)
        spec = write_spec(folder, case, steps)
        with _running(folder / "home", threads) as target, Client(target) as client:
            job = client.submit(spec)
            cpu = _follow(client, job.id, folder / "home")
            events = client.events(job.id)
        return read_steps(events, cpu, folder / "home" / "store")


def write_spec(folder: Path, case: Case, steps: int) -> JsonObject:
    """Write the job's files into `folder` and return its spec."""
    policy = write_policy(folder / "policy", case)
    reward = write_reward_model(folder / "reward", case)
    prompts = [{"prompt": case.text(ids)} for ids in case.prompts(BATCH * steps)]
    lines = "".join(json.dumps(row) + "\n" for row in prompts)
    (folder / "prompts.jsonl").write_text(lines, encoding="utf-8")
    return {
        "name": f"bench-{case.name}",
        "seed": 1,
        "model": {"uri": f"file://{policy}"},
        "reward": {"model": f"file://{reward}"},
        "ppo": {
            "prompts": str(folder / "prompts.jsonl"),
            "steps": steps,
            "prompts_per_step": BATCH,
            "chunk_size": BATCH,
            "max_prompt_length": case.longest,
            "generation": {"max_new_tokens": case.new_tokens},
            "optimizer": {"epochs": EPOCHS, "minibatches": 1},
        },
    }


def _follow(client: Client, job: str, home: Path) -> dict[int, float]:
    """Return the CPU seconds of the stack so far when its learner opened (0) and at the end of each step."""
    seen: dict[int, float] = {}
    for update in client.watch(job):
        event = update.event
        if event is not None and event.type == "learner_opened":
            seen[0] = _cpu_seconds(home)
        if event is not None and event.type == "step_completed":
            seen[int(event.data["step"])] = _cpu_seconds(home)
        if update.job.finished and update.job.state != "SUCCEEDED":
            raise RunFailed(f"the measured job ended as {update.job.state}: {update.job.error}")
    return seen


def _cpu_seconds(home: Path) -> float:
    record = read_record(home)
    processes = [] if record is None else [entry.process() for entry in record.processes]
    return sum(sum(process.cpu_times()[:2]) for process in processes if process is not None)


def read_steps(events: list[Event], cpu: Mapping[int, float], store: Path) -> list[Step]:
    """Return the steps by what the log says. The first one has nothing before it: its own clock counts."""
    sealed: dict[int, str] = {}
    found: list[Step] = []
    before: datetime | None = None
    for event in events:
        if event.type == "batch_sealed":
            sealed[event.data["step"]] = event.data["key"]
        if event.type == "step_completed" and event.data["stage"] == "ppo":
            now = datetime.fromisoformat(event.time)
            metrics = event.data["metrics"]
            wall = float(metrics["time/step"]) if before is None else (now - before).total_seconds()
            step = int(event.data["step"])
            found.append(Step(wall, cpu[step] - cpu[step - 1], metrics, _rows(store / sealed[step])))
            before = now
    return found


def _rows(path: Path) -> list[Row]:
    return [Row(len(row.prompt_ids), len(row.completion_ids)) for row in read_batch(path.read_bytes())]


@contextmanager
def _running(home: Path, threads: int) -> Iterator[str]:
    before = dict(os.environ)
    for name in FOREIGN:
        os.environ.pop(name, None)
    os.environ["QUATRAIN_COMPUTE__THREADS"] = str(threads)
    try:
        stack.up(home)
        endpoint = read_endpoint(home)
        assert endpoint is not None, "the stack is ready, so it has an endpoint"
        yield endpoint.api
    finally:
        stack.down(home)
        os.environ.clear()
        os.environ.update(before)
