"""Every whole number of the spec at its largest accepted value, one job each, beside another job that has to go on.

A field is found in the sections themselves, so that none is forgotten; its largest accepted value is what a dry run
still takes. Each of these jobs is given some seconds, then ended at once, and another one comes: what one of them does
to the service shows in how long `list`, `get` and `watch` of the bystander take, and in whether it ends well. One that
has ended is followed by the next.
"""

import copy
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel
from tests.chaos.jobs import specs
from tests.e2e.tasks import Spec
from tests.load.deployment import Deployment, Size, deployed
from tests.load.processes import memory_mib

from quatrain.client import Client
from quatrain.errors import InvalidInput
from quatrain.jobspec import JobSpec
from quatrain.jobspec.sections import INT64_MAX

JOB_SECONDS = 15.0
"""That a job is given, if it does not end before."""
STEPS_OF_A_BYSTANDER = 60
BYSTANDER_SECONDS = 600.0
CHUNK_SIZE = 256
PROBE_PAUSE = 0.05
TARGET_SECONDS = 1.0
"""That 99 of 100 calls must be answered within."""
SKIPPED = ("ppo.eval_gold",)
"""Sections whose fields stand in another one already."""


@dataclass
class Probes:
    """Asks for the bystander again and again, and notes how long each answer took."""

    target: str
    bystanders: "_Bystanders"
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"list": [], "get": [], "watch": []})
    errors: list[str] = field(default_factory=list)
    _ending: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._probe, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask no more."""
        self._ending.set()
        self._thread.join()

    def _probe(self) -> None:
        with Client(self.target) as client:
            calls: dict[str, Callable[[], object]] = {
                "list": client.list,
                "get": lambda: client.get(self.bystanders.job),
                "watch": lambda: next(iter(client.watch(self.bystanders.job))),
            }
            while not self._ending.wait(PROBE_PAUSE):
                for name, call in calls.items():
                    started = time.monotonic()
                    try:
                        call()
                    except Exception as error:  # noqa: BLE001 whatever it is, it is told
                        self.errors.append(f"{name}: {error!r}")
                    self.seconds[name].append(time.monotonic() - started)


def largest(home: Path, *, only: tuple[str, ...] = (), job_seconds: float = JOB_SECONDS) -> dict[str, Any]:
    """Run them all, or `only` some; see the module."""
    with deployed(home, Size(learner=3, job_slots=3), local_store=True) as deployment:
        spec = _spec(deployment, home / "data-largest")
        bystanders = _Bystanders(deployment, spec)
        probes = Probes(deployment.client.target, bystanders)
        jobs = {}
        for path, most in whole_numbers(JobSpec):
            if not only or path in only:
                jobs[path] = _run(deployment, spec, path, most, job_seconds)
                bystanders.go_on()
        states = bystanders.end()
        probes.stop()
        return _report(deployment, jobs, probes, states)


class _Bystanders:
    """One small job after the other, of the highest priority. Its steps wait for nothing but the service."""

    def __init__(self, deployment: Deployment, spec: Spec) -> None:
        self._client = deployment.client
        self._spec = changed(changed(spec, "name", "bystander"), "priority", 1000)
        for name, value in (("steps", STEPS_OF_A_BYSTANDER), ("prompts_per_step", 4), ("chunk_size", 2)):
            self._spec = changed(self._spec, f"ppo.{name}", value)
        self._states: list[str] = []
        self._submit()

    def _submit(self) -> None:
        self.job = self._client.submit(self._spec, job_id=f"bystander-{len(self._states)}").id

    def go_on(self) -> None:
        """Submit the next one when this one has ended."""
        found = self._client.get(self.job)
        if found.finished:
            self._states.append(found.state)
            self._submit()

    def end(self) -> list[str]:
        """Return how all of them ended."""
        return [*self._states, self._client.wait(self.job, timeout=BYSTANDER_SECONDS).state]


def _report(deployment: Deployment, jobs: dict[str, Any], probes: Probes, bystanders: list[str]) -> dict[str, Any]:
    slowest = {name: max(taken) for name, taken in probes.seconds.items()}
    late = {name: _percentile(taken, 0.99) for name, taken in probes.seconds.items()}
    return {
        "jobs": jobs,
        "bystanders": bystanders,
        "calls": {name: len(taken) for name, taken in probes.seconds.items()},
        "p50_s": {name: round(_percentile(taken, 0.5), 3) for name, taken in probes.seconds.items()},
        "p99_s": {name: round(seconds, 3) for name, seconds in late.items()},
        "slowest_s": {name: round(seconds, 3) for name, seconds in slowest.items()},
        "errors": probes.errors,
        "orchestrator_mib": round(memory_mib(deployment.pids()["orchestrator-0"]), 1),
        "restarts": len(deployment.stack.starts) - len(deployment.stack.processes),
        "target": TARGET_SECONDS,
        "reached": set(bystanders) == {"SUCCEEDED"} and not probes.errors and max(late.values()) <= TARGET_SECONDS,
    }


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def _run(deployment: Deployment, spec: Spec, path: str, most: int, job_seconds: float) -> dict[str, Any]:
    """What became of a job with the largest value of a field."""
    value = _largest_accepted(deployment.client, spec, path, most)
    job = f"largest-{path.replace('.', '-').replace('_', '-')}"
    started = time.monotonic()
    deployment.client.submit(changed(spec, path, value), job_id=job)
    submitted = time.monotonic() - started
    while time.monotonic() - started < job_seconds:
        found = deployment.client.get(job)
        if found.finished:
            break
        time.sleep(0.2)
    else:
        deployment.client.cancel(job, now=True)
    ended = deployment.client.wait(job, timeout=BYSTANDER_SECONDS)
    return {
        "value": value,
        "state": ended.state,
        "stage": ended.stage,
        "step": ended.step,
        "error": ended.error.message if ended.error else "",
        "submit_s": round(submitted, 2),
        "orchestrator_mib": round(memory_mib(deployment.pids()["orchestrator-0"]), 1),
    }


def _largest_accepted(client: Client, spec: Spec, path: str, most: int) -> int:
    """The largest value that a dry run takes. What is accepted of a field is everything up to some number."""

    def accepted(value: int) -> bool:
        try:
            client.submit(changed(spec, path, value), validate_only=True)
        except InvalidInput:
            return False
        return True

    if accepted(most):
        return most
    low = int(_value(spec, path) or 1)
    while most - low > 1:
        middle = (low + most) // 2
        low, most = (middle, most) if accepted(middle) else (low, middle)
    return low


def whole_numbers(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, int]]:
    """Path and bound of each field of the spec that is a whole number."""
    for name, info in model.model_fields.items():
        path = f"{prefix}{name}"
        kinds = _kinds(info.annotation)
        sections = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if path in SKIPPED:
            continue
        if sections:
            yield from whole_numbers(sections[0], f"{path}.")
        elif int in kinds:
            bounds = [each.le for each in [*info.metadata, *_metadata(info.annotation)] if hasattr(each, "le")]
            yield path, min(bounds, default=INT64_MAX)


def _kinds(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    if get_origin(annotation) is UnionType or "Union" in str(get_origin(annotation)):
        return [kind for each in get_args(annotation) for kind in _kinds(each)]
    return [annotation]


def _metadata(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return [part for each in get_args(annotation)[1:] for part in [each, *getattr(each, "metadata", [])]]
    return [part for each in get_args(annotation) for part in _metadata(each)]


def _spec(deployment: Deployment, folder: Path) -> Spec:
    """All three stages in little, everything that they name uploaded already; a large step takes large chunks."""
    resolved = deployment.client.submit(specs(folder, fake=True)["full"], validate_only=True).resolved_spec
    assert resolved is not None, "a validated submission has its resolved spec"
    return changed(resolved, "ppo.chunk_size", CHUNK_SIZE)


def _value(spec: Spec, path: str) -> Any:
    for name in path.split("."):
        spec = spec[name]
    return spec


def changed(spec: Spec, path: str, value: Any) -> Spec:
    """The spec with another value at a dotted path."""
    found = copy.deepcopy(spec)
    sections, _, name = path.rpartition(".")
    section = _value(found, sections) if sections else found
    section[name] = value
    return found
