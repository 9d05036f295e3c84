"""What the client returns, as frozen dataclasses, and how they are made from messages."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from quatrain.jobspec import spec_from_proto
from quatrain.refs import ModelRef
from quatrain.v1 import artifact_pb2, common_pb2, job_pb2

TERMINAL_STATES = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})

Metrics = dict[str, float | None]


@dataclass(frozen=True)
class NamedModel:
    """A model under a name; `number` counts the name's entries from 1 (0: it has no name)."""

    name: str
    number: int
    model: ModelRef


@dataclass(frozen=True)
class Artifact:
    """An uploaded file; `uri` goes into a job spec."""

    uri: str
    sha256: str
    size: int


@dataclass(frozen=True)
class JobFailure:
    """The reason of a failure: a word for programs, a message for people."""

    reason: str
    message: str


@dataclass(frozen=True)
class ForkedFrom:
    """The origin of a fork: the job that was forked and the PPO step of its checkpoint."""

    job: str
    step: int


@dataclass(frozen=True)
class Job:
    """A job. `state` is one of the words of the design (`QUEUED`, `RUNNING`, ...), times are RFC 3339 in UTC.

    `spec` and `resolved_spec` are None in lists and in events. `metrics` are those of the newest step.
    """

    id: str
    name: str
    state: str
    stage: str = ""
    phase: str = ""
    step: int = 0
    total_steps: int = 0
    attempt: int = 0
    policy_version: int = 0
    revision: int = 0
    error: JobFailure | None = None
    owner: str = ""
    metrics: Metrics = field(default_factory=dict)
    model: ModelRef | None = None
    reward_model: ModelRef | None = None
    sft_model: ModelRef | None = None
    stage_models: dict[str, ModelRef] = field(default_factory=dict)
    weights_sha256: str = ""
    create_time: str = ""
    update_time: str = ""
    conditions: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    forked_from: ForkedFrom | None = None
    spec: dict[str, Any] | None = None
    resolved_spec: dict[str, Any] | None = None

    @property
    def finished(self) -> bool:
        """True when nothing will change any more."""
        return self.state in TERMINAL_STATES


@dataclass(frozen=True)
class Event:
    """One event of a job's log."""

    revision: int
    type: str
    data: dict[str, Any]
    time: str
    actor: str


@dataclass(frozen=True)
class Update:
    """A change that a watcher sees: the job after it, and the event that made it (None: a snapshot of now)."""

    job: Job
    event: Event | None
    revision: int


@dataclass(frozen=True)
class Checkpoint:
    """A committed checkpoint; `policy` is the policy version published for the same step."""

    stage: str
    step: int
    attempt: int
    revision: int
    pinned: bool
    key: str
    sha256: str
    policy: ModelRef | None


@dataclass(frozen=True)
class Rollout:
    """One sample of a step. `status` is `rollout`, `skipped` or `refused`; `finish_reason` is `stop` or `length`."""

    id: str
    step: int
    prompt_index: int
    sample_index: int
    policy_version: int
    status: str
    reason: str
    prompt: str
    completion: str
    finish_reason: str
    score: float | None
    gold: float | None
    terms: Metrics
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    ref_logprobs: tuple[float, ...]


def metrics_from(values: Iterable[common_pb2.NamedValue]) -> Metrics:
    """Return named values as a dict; an absent number is None."""
    return {each.name: each.value if each.HasField("value") else None for each in values}


def job_from(message: job_pb2.Job) -> Job:
    """Return the job of a message."""

    def model(name: str) -> ModelRef | None:
        return ModelRef.from_proto(getattr(message, name)) if message.HasField(name) else None

    error, forked = message.error, message.forked_from
    return Job(
        id=message.id,
        name=message.name,
        owner=message.owner,
        state=job_pb2.JobState.Name(message.state).removeprefix("JOB_STATE_"),
        stage=message.stage,
        phase=message.phase,
        step=message.step,
        total_steps=message.total_steps,
        attempt=message.attempt,
        policy_version=message.policy_version,
        revision=message.revision,
        error=JobFailure(error.reason, error.message) if message.HasField("error") else None,
        spec=spec_from_proto(message.spec) if message.HasField("spec") else None,
        resolved_spec=json.loads(message.resolved_spec_json) if message.resolved_spec_json else None,
        metrics=metrics_from(message.metrics),
        model=model("model"),
        reward_model=model("reward_model"),
        sft_model=model("sft_model"),
        stage_models={stage: ModelRef.from_proto(each) for stage, each in message.stage_models.items()},
        weights_sha256=message.weights_sha256,
        create_time=message.create_time,
        update_time=message.update_time,
        conditions=dict(message.conditions),
        warnings=tuple(message.warnings),
        forked_from=ForkedFrom(forked.job_id, forked.step) if message.HasField("forked_from") else None,
    )


def event_from(message: job_pb2.JobEvent) -> Event:
    """Return the event of a message."""
    data = json.loads(message.data_json) if message.data_json else {}
    return Event(message.revision, message.type, data, message.time, message.actor)


def checkpoint_from(message: job_pb2.Checkpoint) -> Checkpoint:
    """Return the checkpoint of a message."""
    return Checkpoint(
        stage=message.stage,
        step=message.step,
        attempt=message.attempt,
        revision=message.revision,
        pinned=message.pinned,
        key=message.manifest.key,
        sha256=message.manifest.sha256,
        policy=ModelRef.from_proto(message.policy) if message.HasField("policy") else None,
    )


def rollout_from(message: job_pb2.Rollout) -> Rollout:
    """Return the sample of a message."""
    reason = common_pb2.FinishReason.Name(message.finish_reason).removeprefix("FINISH_REASON_").lower()
    return Rollout(
        id=message.id,
        step=message.step,
        prompt_index=message.prompt_index,
        sample_index=message.sample_index,
        policy_version=message.policy_version,
        status=message.status,
        reason=message.reason,
        prompt=message.prompt,
        completion=message.completion,
        finish_reason="" if reason == "unspecified" else reason,
        score=message.score if message.HasField("score") else None,
        gold=message.gold if message.HasField("gold") else None,
        terms=metrics_from(message.terms),
        prompt_ids=tuple(message.prompt_ids),
        completion_ids=tuple(message.completion_ids),
        logprobs=tuple(message.logprobs),
        ref_logprobs=tuple(message.ref_logprobs),
    )


def named_model_from(message: artifact_pb2.NamedModel) -> NamedModel:
    """Return the named model of a message."""
    return NamedModel(message.name, message.number, ModelRef.from_proto(message.model))
