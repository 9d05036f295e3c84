"""A job through a release whose pods run: submitted over its Service from outside its namespace, watched, opened."""

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.api import Outcome
from tests.cluster.release import Release

EXAMPLE = Path(__file__).parents[2] / "examples" / "count-token" / "spec.yaml"
# Less than the example: the disturbances are what takes time here. The learning itself is checked elsewhere.
SIZE = ("ppo.steps=160", "ppo.prompts_per_step=128", "ppo.chunk_size=8")
JOB_DEADLINE = 1200.0
FINISHED = ("SUCCEEDED", "FAILED", "CANCELLED")


@dataclass(frozen=True)
class Client:
    """The command line, run on the node: it reaches the release as programs of other namespaces do."""

    release: Release
    folder: Path
    tls: bool = False

    def try_quatrain(self, *arguments: str, deadline: float = 120.0) -> Outcome:
        """For calls that may fail because pods are down."""
        env = [f"{name}={value}" for name, value in self.environment().items()]
        command = ("env", *env, sys.executable, "-m", "quatrain.cli", *arguments)
        return self.release.cluster.run(*command, deadline=deadline)

    def environment(self) -> dict[str, str]:
        """What the command line needs, by the release's Secrets as they are now."""
        host = f"{self.release.full_name}-orchestrator.{self.release.namespace}.svc"
        given = {"QUATRAIN_TOKEN": self.release.secret("tokens")["token"], "QUATRAIN_HOME": str(self.folder)}
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.tls:
            return {**given, "QUATRAIN_ENDPOINT": f"http://{host}:50050", "QUATRAIN_INSECURE": "1"}
        ca = self.folder / "ca.crt"
        ca.write_text(self.release.secret("tls")["ca.crt"])
        return {**given, "QUATRAIN_ENDPOINT": f"https://{host}:50050", "QUATRAIN_CA": str(ca)}

    def quatrain(self, *arguments: str, deadline: float = 120.0) -> str:
        """Raises AssertionError with the command's words when it fails."""
        done = self.try_quatrain(*arguments, deadline=deadline)
        assert done.code == 0, f"quatrain {' '.join(arguments)}: {done.code} {done.errors[-2000:]}"
        return done.output

    def submit(self, *values: str) -> str:
        """The id of a new job; `values` go before its usual size."""
        if not (EXAMPLE.parent / "base-model").exists():
            subprocess.run([sys.executable, str(EXAMPLE.parent / "make_base.py")], check=True, timeout=120.0)
        options = [option for value in (*SIZE, *values) for option in ("--set", value)]
        return self.quatrain("job", "submit", str(EXAMPLE), *options, "-o", "name").strip()

    def job(self, job: str) -> dict[str, Any]:
        """The job as it stands."""
        found: dict[str, Any] = json.loads(self.quatrain("job", "get", job, "-o", "json"))
        return found

    def reach(self, job: str, step: int) -> None:
        """Waits until the job has done a step, or has ended. Meanwhile the API may be down."""
        until = time.monotonic() + JOB_DEADLINE
        while True:
            answer = self.try_quatrain("job", "get", job, "-o", "json")
            now: dict[str, Any] = {"step": -1, "state": answer.errors}
            if answer.code == 0:
                now = json.loads(answer.output)
            if now["step"] >= step or now["state"] in FINISHED:
                return
            assert time.monotonic() < until, f"job {job} is still before step {step}: {now}"
            time.sleep(2.0)

    def watch(self, job: str) -> list[dict[str, Any]]:
        """All that the job tells until its end."""
        lines = self.quatrain("job", "watch", job, "-o", "json", deadline=JOB_DEADLINE).splitlines()
        return [json.loads(line) for line in lines]

    def weights(self, job: str) -> str:
        """The sha256 of the downloaded model's weights, after the model was opened and asked."""
        folder = self.folder / job
        self.quatrain("checkpoint", "download", job, "--to", str(folder))
        open_model(folder)
        return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


@dataclass(frozen=True)
class Run:
    """One line of the table."""

    name: str
    state: str
    weights: str | None  # None: of another job than the one that the others run
    seconds: float
    notes: Sequence[str]


def run_job(client: Client, name: str, disturb: Callable[[str], Sequence[str]]) -> Run:
    """A job from its submission to its opened model; `disturb` is called with its id once it trains."""
    began = time.monotonic()
    job = client.submit()
    client.reach(job, 1)
    notes = disturb(job)
    assert client.job(job)["state"] not in FINISHED, f"job {job} ended before all of this had happened: {notes}"
    told = client.watch(job)
    state = client.job(job)["state"]
    assert told, f"job {job} told nothing"
    weights = client.weights(job) if state == "SUCCEEDED" else ""
    return Run(name, state, weights, time.monotonic() - began, notes)


def open_model(folder: Path) -> None:
    """Raises when the model does not load or answers nonsense."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    logits = model(input_ids=torch.tensor([[2, 3]])).logits
    assert bool(torch.isfinite(logits).all())
