"""What a job is now: a view of its event log. `folding` makes it."""

from dataclasses import dataclass, field

from quatrain.joblog.compact import MetricRow, MetricRows, PackedSteps, StepSet
from quatrain.joblog.payloads import (
    AttemptFailed,
    BatchSealed,
    CancelRequested,
    Evaluated,
    Forked,
    JobError,
    OffsetMeasured,
    PauseRequested,
    StageCompleted,
)
from quatrain.refs import ModelRef, ObjectRef

TERMINAL_STATES = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})


@dataclass(frozen=True)
class Checkpoint:
    """A committed checkpoint: its manifest, the attempt that wrote it, and the revision of its event."""

    stage: str
    step: int
    manifest: ObjectRef
    attempt: int
    revision: int

    @property
    def key(self) -> str:
        """Key of the manifest: what tells checkpoints apart."""
        return self.manifest.key


@dataclass(frozen=True)
class ReleasedCheckpoint:
    """A checkpoint that was given up: when, by whom and why."""

    stage: str
    step: int
    key: str
    reason: str
    time: str
    actor: str
    revision: int


@dataclass(frozen=True)
class Tombstone:
    """The deletion of a job: when, by whom and why."""

    time: str
    actor: str
    reason: str


@dataclass(frozen=True)
class Intents:
    """The intents of a job: what people have asked of it and its owner has not done yet."""

    cancel: CancelRequested | None = None
    pause: PauseRequested | None = None


def _sealed() -> PackedSteps[BatchSealed]:
    return PackedSteps(BatchSealed.to_json, BatchSealed.model_validate)


def _tokens() -> PackedSteps[ObjectRef]:
    return PackedSteps(ObjectRef.to_json, ObjectRef.from_json)


@dataclass
class JobView:
    """A job, folded up to `revision`. A view is changed only by `apply`."""

    job: str
    revision: int = 0
    state: str = "VALIDATING"
    reason: str = ""
    stage: str = ""
    step: int = 0
    total_steps: int = 0
    epoch: int = 0
    attempt: int = 0
    """The newest learner attempt of the job: what fences off the ones before it."""
    stage_attempt: int = 0
    """The attempt that people see: 1 while nothing was lost in the stage, one more for each lost learner or owner."""
    lost: bool = False
    """A learner or an owner was lost, and no attempt has begun since."""
    phase: str = ""
    """A long activity that the owner is busy with; its next event of another kind ends it."""
    owner: str = ""
    """Id of the orchestrator that works on the job. Empty before the first one, and after one has given the job up
    (PAUSED): then the job may be taken at once, without waiting for anybody."""
    owners_without_progress: int = 0
    """Owners since the last event that made progress, the present one among them. A job that kills them has many."""
    elapsed: float = 0.0
    """Seconds that owners have worked on the job, each by its own monotonic clock, as of the last event that says so;
    pauses do not count."""
    stage_began: float = 0.0
    """`elapsed` at the start of the running stage."""
    policy_version: int = 0
    policies: dict[int, ModelRef] = field(default_factory=dict)
    """PPO policy version to its model; a released one is in `released_policies` instead."""
    released_policies: StepSet = field(default_factory=StepSet)
    sealed: PackedSteps[BatchSealed] = field(default_factory=_sealed)
    """By PPO step."""
    tokens: PackedSteps[ObjectRef] = field(default_factory=_tokens)
    """PPO step to its token table."""
    completed: dict[str, int] = field(default_factory=dict)
    """Stage to its last completed step."""
    metrics: dict[str, MetricRows] = field(default_factory=dict)
    """Stage to its rows in the order of steps; evaluations are merged into the row of their step (0: before the
    first)."""
    checkpoints: list[Checkpoint] = field(default_factory=list)
    """In the order of their commits, less the released."""
    released: dict[str, ReleasedCheckpoint] = field(default_factory=dict)
    """By the key of the manifest."""
    pinned: set[str] = field(default_factory=set)
    """Keys of the checkpoints that somebody has pinned."""
    stage_results: dict[str, StageCompleted] = field(default_factory=dict)
    """By stage."""
    evaluations: dict[int, Evaluated] = field(default_factory=dict)
    """By PPO step."""
    offset: OffsetMeasured | None = None
    conditions: dict[str, str] = field(default_factory=dict)
    intents: Intents = field(default_factory=Intents)
    forked: Forked | None = None
    """None for a job that is no fork."""
    failures: list[AttemptFailed] = field(default_factory=list)
    """Attempts that failed since the newest checkpoint or completed stage: the retry budget counts these."""
    error: JobError | None = None
    deleted: Tombstone | None = None
    """None while the job's data are kept."""
    create_time: str = ""
    update_time: str = ""

    @property
    def finished(self) -> bool:
        """True after the terminal event."""
        return self.state in TERMINAL_STATES

    @property
    def paused(self) -> bool:
        """True while there is nothing to do for an owner: the job is paused and nobody asks for its end."""
        return self.state == "PAUSED" and self.intents.cancel is None

    def forget_steps(self) -> None:
        """Drop metrics, sealed batches and token tables of every step but the newest.

        This is for those who show the job. An owner needs all of it.
        """
        if self.sealed or self.tokens:
            self.sealed, self.tokens = _sealed(), _tokens()
        for stage, rows in self.metrics.items():
            if len(rows) > 1:
                self.metrics[stage] = rows.newest_only()

    @property
    def latest_metrics(self) -> MetricRow | None:
        """The newest row of the running stage, or of the newest stage that has any; None before."""
        for stage in (self.stage, *reversed(self.metrics)):
            if self.metrics.get(stage):
                return self.metrics[stage][-1]
        return None

    def newest_checkpoint(self, stage: str) -> Checkpoint | None:
        """Return the newest checkpoint of a stage; None when there is none."""
        return next((each for each in reversed(self.checkpoints) if each.stage == stage), None)
