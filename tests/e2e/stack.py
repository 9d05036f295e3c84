"""A local stack of real processes for tests: started, talked to, its processes killed, taken down."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis as redis_client
from prometheus_client.parser import text_string_to_metric_families

from quatrain.client import Client, Job
from quatrain.local import stack as local_stack
from quatrain.local.home import read_endpoint
from quatrain.local.state import ProcessRecord, read_record

JOB_DEADLINE = 240.0
CLI_DEADLINE = 120.0
RESTART_DEADLINE = 120.0
# Tiny models are slower on two threads than on one; a metrics port in each process tells who did the work.
SETTINGS = {"QUATRAIN_COMPUTE__THREADS": "1", "QUATRAIN_SERVER__METRICS_PORT": "0", "CUDA_VISIBLE_DEVICES": ""}
# What a person may have set; a test's stack is its own.
FOREIGN = (
    *("REDIS_URL", "S3_ENDPOINT", "S3_BUCKET", "S3_ACCESS_KEY", "S3_SECRET_KEY"),
    *("QUATRAIN_ENDPOINT", "QUATRAIN_TOKEN", "QUATRAIN_TOKEN_FILE", "QUATRAIN_CA", "QUATRAIN_CERT", "QUATRAIN_KEY"),
)


@dataclass(frozen=True)
class CommandResult:
    """How a run of the command line ended."""

    code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Stack:
    """A running stack whose state lies in `home`. `redis_url`: a server outside of it; empty for its own."""

    home: Path
    redis_url: str = ""

    @property
    def target(self) -> str:
        """host:port of the API."""
        endpoint = read_endpoint(self.home)
        assert endpoint is not None, f"{self.home} has no endpoint.json"
        return endpoint.api

    def client(self) -> Client:
        return Client(self.target)

    def scale(self, **replicas: int) -> None:
        """Brings the stack to these numbers of processes and waits until they serve."""
        local_stack.up(self.home, replicas=replicas)

    def processes(self) -> dict[str, ProcessRecord]:
        record = read_record(self.home)
        assert record is not None, f"no stack runs in {self.home}"
        return {process.name: process for process in record.processes}

    def kill(self, name: str) -> ProcessRecord:
        """Kills one process of the stack by SIGKILL; its supervisor will start it again."""
        record = self.processes()[name]
        os.kill(record.pid, signal.SIGKILL)
        return record

    def await_restart(self, before: ProcessRecord) -> None:
        """Waits until the process that `kill` has ended serves again."""

        def serves() -> bool:
            record = self.processes().get(before.name)
            there = record is not None and record.pid != before.pid
            return there and (self.home / "run" / f"{before.name}.json").exists()

        wait_until(serves, RESTART_DEADLINE, f"{before.name} did not come back")

    def redis(self) -> "redis_client.Redis":
        url = self.redis_url or f"redis://127.0.0.1:{self.processes()['redis'].port}/0"
        return redis_client.Redis.from_url(url)

    def served(self, kind: str, method: str) -> dict[str, int]:
        """Calls of an RPC that each replica of a kind has answered with OK."""
        return {name: self._counted(name, method) for name in self.processes() if name.rpartition("-")[0] == kind}

    def _counted(self, name: str, method: str) -> int:
        ports = json.loads((self.home / "run" / f"{name}.json").read_text())
        with urllib.request.urlopen(f"http://127.0.0.1:{ports['metrics_port']}/metrics", timeout=10.0) as answer:
            text = answer.read().decode()
        return sum(
            int(sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "quatrain_rpc_handled_total"
            and sample.labels["method"] == method
            and sample.labels["code"] == "OK"
        )

    def run_cli(self, *arguments: str, cwd: Path | None = None) -> CommandResult:
        """The command line, with the stack's home."""
        done = subprocess.run(
            [sys.executable, "-m", "quatrain.cli", *arguments],
            env={**_without(FOREIGN), "QUATRAIN_HOME": str(self.home)},
            cwd=cwd or self.home,
            capture_output=True,
            text=True,
            timeout=CLI_DEADLINE,
            check=False,
        )
        return CommandResult(done.returncode, done.stdout, done.stderr)

    def logs(self, lines: int = 30) -> str:
        """The ends of all logs, for messages of failed tests."""
        parts = []
        for path in sorted((self.home / "logs").glob("*.log")):
            tail = path.read_text(errors="replace").splitlines()[-lines:]
            parts.append("\n".join([f"--- {path.name}", *tail]))
        return "\n".join(parts)


@contextmanager
def running_stack(
    home: Path, replicas: Mapping[str, int] | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[Stack]:
    """A stack of its own in `home`. `environment`: REDIS_URL, S3_ENDPOINT and the like, else it has its own servers."""
    extra = dict(environment or {})
    with _environment({**SETTINGS, **extra}):
        try:
            local_stack.up(home, replicas=dict(replicas or {}))
            yield Stack(home, extra.get("REDIS_URL", ""))
        finally:
            local_stack.down(home)


def finish(stack: Stack, client: Client, job: Job, timeout: float = JOB_DEADLINE) -> Job:
    """Waits for a job that must succeed."""
    finished = client.wait(job.id, timeout=timeout)
    assert finished.state == "SUCCEEDED", f"{finished.state}: {finished.error}\n{stack.logs()}"
    return finished


def await_step(client: Client, job: Job, step: int, timeout: float = JOB_DEADLINE) -> Job:
    """Waits until PPO step `step` is completed."""
    seen = [job]

    def reached() -> bool:
        seen[0] = client.get(job.id)
        assert not seen[0].finished, f"job {job.id} ended before step {step}: {seen[0].state} {seen[0].error}"
        return seen[0].stage == "ppo" and seen[0].step >= step

    wait_until(reached, timeout, f"job {job.id} did not reach step {step}")
    return seen[0]


def wait_until(condition: Callable[[], bool], timeout: float, message: str) -> None:
    """Polls a condition. Fails with the message after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{message} within {timeout:g} s"
        time.sleep(0.05)


def _without(names: tuple[str, ...]) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in names}


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """`up` hands the environment on to the processes."""
    before = dict(os.environ)
    try:
        for name in FOREIGN:
            os.environ.pop(name, None)
        os.environ.update(values)
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
