"""What each type of event says: one class a type, whose fields are the event's `data`.

Logs are kept forever, so every log that was ever written has to fold: a later field has a default, a removed one is
ignored, and the JSON of a field never changes its meaning. docs/events.md is written from these classes.
"""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from quatrain.refs import ObjectRef
from quatrain.stored import Stored, StoredModel, StoredObject

Metrics = dict[str, float | None]
"""Metrics of a step by name; None: not defined for this step."""


class JobError(Stored):
    """Why a job failed: a stable word for programs, a message for people."""

    reason: str = ""
    message: str = ""


class StageReport(Stored):
    """The report of a finished stage."""

    metrics: Metrics = Field(default_factory=dict)
    """Of its last step."""
    offset: float | None = None
    """Of a reward model: what centring subtracts."""


class Payload(Stored):
    """Base of the payloads."""

    TYPE: ClassVar[str]


class OwnerTaken(Payload):
    """An orchestrator took the job: a new epoch. Older epochs can write nothing any more."""

    TYPE: ClassVar[str] = "owner_taken"

    owner: str


class StateChanged(Payload):
    """The job is in another state. `PAUSED` says that its owner has given it up."""

    TYPE: ClassVar[str] = "state_changed"

    state: str
    reason: str = ""
    elapsed: float | None = None
    """With `PAUSED`: seconds that owners have worked on the job."""


class StageStarted(Payload):
    """`sft`, `reward` or `ppo` begins."""

    TYPE: ClassVar[str] = "stage_started"

    stage: str
    total_steps: int = 0
    elapsed: float | None = None
    """Seconds that owners have worked on the job."""


class LearnerOpened(Payload):
    """A new attempt, from the checkpoint of `from_step` (0: from the start of the stage)."""

    TYPE: ClassVar[str] = "learner_opened"

    stage: str
    from_step: int = 0


class BatchSealed(Payload):
    """The input of a PPO step is fixed. From here on the step can be replayed."""

    TYPE: ClassVar[str] = "batch_sealed"

    stage: str = "ppo"
    step: int
    key: str
    sha256: str
    size: int = 0
    policy_version: int = 0
    """The version that made the rollouts."""
    rollouts: int = 0
    """Rows to train on."""
    skipped: int = 0
    """Rows that no reward function gave a score."""
    refused: int = 0
    """Rows that cannot be trained on."""
    collected: Metrics = Field(default_factory=dict)
    """Metrics of the collection, for the row of the step."""

    @property
    def batch(self) -> ObjectRef:
        """The sealed batch."""
        return ObjectRef(self.key, self.sha256, self.size)


class StepCompleted(Payload):
    """A step is done."""

    TYPE: ClassVar[str] = "step_completed"

    stage: str
    step: int
    metrics: Metrics
    elapsed: float | None = None
    """Seconds that owners have worked on the job."""
    tokens: StoredObject | None = None
    """PPO: the per-token table."""
    policy: StoredModel | None = None
    """PPO: the new policy version."""
    learner: str = ""
    """Id of the learner that trained the step."""


class PolicyPublished(Payload):
    """The PPO version that the job starts from: 0 is the SFT model as it is, a fork's has its checkpoint's step."""

    TYPE: ClassVar[str] = "policy_published"

    stage: str
    step: int = 0
    model: StoredModel


class CheckpointCommitted(Payload):
    """All state after a step is saved."""

    TYPE: ClassVar[str] = "checkpoint"

    stage: str
    step: int
    key: str
    """Of the manifest."""
    sha256: str
    size: int = 0

    @property
    def manifest(self) -> ObjectRef:
        """The manifest of the checkpoint's files."""
        return ObjectRef(self.key, self.sha256, self.size)


class Evaluated(Payload):
    """An evaluation of the policy of a step, sealed like a batch."""

    TYPE: ClassVar[str] = "evaluated"

    step: int
    key: str
    sha256: str
    size: int = 0
    metrics: Metrics

    @property
    def batch(self) -> ObjectRef:
        """The sealed samples."""
        return ObjectRef(self.key, self.sha256, self.size)


class OffsetMeasured(Payload):
    """The mean score that centring subtracts."""

    TYPE: ClassVar[str] = "offset_measured"

    offset: float
    samples: int = 0
    """Completions that were scored for it."""
    report: Metrics = Field(default_factory=dict)
    """How empty and repeated answers score against the median of the samples."""


class StageCompleted(Payload):
    """A stage is done and its model written."""

    TYPE: ClassVar[str] = "stage_completed"

    stage: str
    model: StoredModel
    weights_sha256: str = ""
    report: StageReport = Field(default_factory=StageReport)


class Forked(Payload):
    """First word of a fork's history: what it takes over of job `job`."""

    TYPE: ClassVar[str] = "forked"

    job: str
    step: int
    checkpoint: StoredObject
    """The fork's own copy of the checkpoint of PPO step `step`."""
    stage_results: dict[str, StageCompleted] = Field(default_factory=dict)
    offset: OffsetMeasured | None = None
    value_model: StoredModel | None = None
    """The model whose architecture the checkpoint's value model has; null: the SFT model's."""


PHASE = "phase"
"""Name of the condition that says what the owner does while it takes long, and how far it is."""


class ConditionChanged(Payload):
    """Something people should know; a null message ends it. The condition `phase` ends by itself: with the next event
    of the owner."""

    TYPE: ClassVar[str] = "condition"

    name: str
    message: str | None


class AttemptFailed(Payload):
    """A learner was lost; it counts against `limits.retries` until the next checkpoint."""

    TYPE: ClassVar[str] = "attempt_failed"

    reason: str
    message: str
    stage: str = ""
    step: int = 0
    learner: str = ""
    """Id of the learner, where it is known."""


class CancelRequested(Payload):
    """Somebody asked for the end."""

    TYPE: ClassVar[str] = "cancel_requested"

    now: bool = False
    """At once, without finishing the step."""
    reason: str = ""


class PauseRequested(Payload):
    """Somebody asked for a pause. A job without an owner is paused by this alone."""

    TYPE: ClassVar[str] = "pause_requested"

    reason: str = ""


class ResumeRequested(Payload):
    """Somebody ended the pause, or took back that they asked for one. A paused job is `QUEUED` by this."""

    TYPE: ClassVar[str] = "resume_requested"

    reason: str = ""


class CheckpointPinned(Payload):
    """Somebody pinned a checkpoint, or with `pinned` false lifted the pin."""

    TYPE: ClassVar[str] = "checkpoint_pinned"

    stage: str = "ppo"
    step: int = 0
    key: str
    pinned: bool
    reason: str = ""


class CheckpointReleased(Payload):
    """A checkpoint is given up, by retention (`reason` is `retention`) or because somebody asked. Its data are deleted
    after this."""

    TYPE: ClassVar[str] = "checkpoint_released"

    stage: str = "ppo"
    step: int = 0
    key: str
    reason: str = ""


class PoliciesReleased(Payload):
    """PPO policy versions that nothing needs any more. Their data are deleted after this."""

    TYPE: ClassVar[str] = "policies_released"

    versions: tuple[int, ...]


class JobFinished(Payload):
    """The terminal event: `SUCCEEDED`, `FAILED` (`error` has `reason` and `message`) or `CANCELLED`."""

    TYPE: ClassVar[str] = "job_finished"

    state: str
    error: JobError | None = None


class JobDeleted(Payload):
    """The tombstone: all data of the job but spec and events are deleted after this."""

    TYPE: ClassVar[str] = "job_deleted"

    reason: str = ""


class Unknown(Payload):
    """An event of a type that this version does not know. It is shown, and cannot be folded."""

    TYPE: ClassVar[str] = "unknown"


PAYLOADS: tuple[type[Payload], ...] = (
    OwnerTaken,
    Forked,
    StateChanged,
    StageStarted,
    LearnerOpened,
    BatchSealed,
    StepCompleted,
    PolicyPublished,
    CheckpointCommitted,
    Evaluated,
    OffsetMeasured,
    StageCompleted,
    ConditionChanged,
    AttemptFailed,
    CancelRequested,
    PauseRequested,
    ResumeRequested,
    CheckpointPinned,
    CheckpointReleased,
    PoliciesReleased,
    JobFinished,
    JobDeleted,
)
"""In the order of docs/events.md."""

HOUSEKEEPING = (CheckpointPinned, CheckpointReleased, PoliciesReleased, JobDeleted)
"""What may follow the terminal event: care for the data of a job that has ended. None of it changes how it ended."""

_BY_TYPE = {payload.TYPE: payload for payload in PAYLOADS}


def payload_from(type: str, data: Mapping[str, object]) -> Payload:
    """Return the payload of a stored event. Raises ValueError when `data` is not what an event of the type holds."""
    return _BY_TYPE.get(type, Unknown).model_validate(data)
