"""What a job is now: a view of its event log. `folding` makes it."""

from dataclasses import dataclass, field
from typing import Any

from quatrain.joblog.compact import MetricRow, MetricRows, PackedRefs, Ref, StepSet

TERMINAL_STATES = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})
# What may follow the terminal event: care for the data of a job that has ended. None of it changes how it ended.
HOUSEKEEPING = frozenset({"checkpoint_pinned", "checkpoint_released", "policies_released", "job_deleted"})


@dataclass
class JobView:
    """A job, folded up to `revision`.

    Dictionaries hold the `data` of the event that they come from, so their fields are the event's. A view is
    changed only by `apply`.
    """

    job: str
    revision: int = 0
    state: str = "VALIDATING"
    reason: str = ""
    stage: str = ""
    step: int = 0
    total_steps: int = 0
    total_rows: int = 0
    epoch: int = 0
    attempt: int = 0
    # Who works on the job. Empty before the first owner and after one has given the job up (PAUSED): it may be taken
    # at once, nobody has to be waited for.
    owner: str = ""
    owner_address: str = ""
    # Owners since the last event that brought the job on: a job that ends its owners one after the other shows here.
    takeovers: int = 0
    # Seconds that owners have worked on the job, each by its own monotonic clock, up to the last event that says so;
    # pauses do not count.
    elapsed: float = 0.0
    # `elapsed` at the start of the running stage.
    stage_began: float = 0.0
    # Data of the newest `learner_opened`; None before the first.
    learner: dict[str, Any] | None = None
    policy_version: int = 0
    # PPO policy version to its model; a released one is in `released_policies` instead.
    policies: dict[int, Ref] = field(default_factory=dict)
    released_policies: StepSet = field(default_factory=StepSet)
    # Stage to the model that was published for it last.
    published: dict[str, Ref] = field(default_factory=dict)
    # PPO step to the data of its `batch_sealed`.
    sealed: PackedRefs = field(default_factory=PackedRefs)
    # PPO step to its token table.
    tokens: PackedRefs = field(default_factory=PackedRefs)
    # Stage to its last completed step.
    completed: dict[str, int] = field(default_factory=dict)
    # Stage to its rows in the order of steps; evaluations are merged into the row of their step (0: before the first).
    metrics: dict[str, MetricRows] = field(default_factory=dict)
    # Data of every `checkpoint` event with `attempt` and `revision`, in the order of their commits, less the released.
    checkpoints: list[Ref] = field(default_factory=list)
    # Key of a released checkpoint to the data of its `checkpoint_released` with `time`, `actor` and `revision`.
    released: dict[str, Ref] = field(default_factory=dict)
    # Keys of the checkpoints that somebody has pinned.
    pinned: set[str] = field(default_factory=set)
    # Stage to the data of its `stage_completed`.
    stage_results: dict[str, dict[str, Any]] = field(default_factory=dict)
    # Step to the data of its `evaluated`.
    evaluations: dict[int, Ref] = field(default_factory=dict)
    # The centring offset, {"offset", "samples"}; None before it was measured.
    offset: dict[str, Any] | None = None
    conditions: dict[str, str] = field(default_factory=dict)
    # Open wishes: `cancel` {"now", "reason"}, `pause` {"reason"}.
    intents: dict[str, dict[str, Any]] = field(default_factory=dict)
    # Data of `forked`; None for a job that is no fork.
    forked: dict[str, Any] | None = None
    # Data of the failed attempts since the newest checkpoint or completed stage: the retry budget counts these.
    failures: list[dict[str, Any]] = field(default_factory=list)
    error: dict[str, Any] | None = None
    # The tombstone, {"time", "actor", "reason"}; None while the job's data are kept.
    deleted: dict[str, Any] | None = None
    create_time: str = ""
    update_time: str = ""

    @property
    def finished(self) -> bool:
        """True after the terminal event."""
        return self.state in TERMINAL_STATES

    @property
    def resting(self) -> bool:
        """True while there is nothing to do for an owner: the job is paused and nobody wants its end."""
        return self.state == "PAUSED" and "cancel" not in self.intents

    def forget_steps(self) -> None:
        """Lets go of what is kept of every step but the newest: metrics, sealed batches, token tables.

        For who shows the job. An owner needs all of it.
        """
        if self.sealed or self.tokens:
            self.sealed, self.tokens = PackedRefs(), PackedRefs()
        for stage, rows in self.metrics.items():
            if len(rows) > 1:
                self.metrics[stage] = rows.newest_only()

    @property
    def latest_metrics(self) -> MetricRow:
        """The newest row of the running stage, or of the newest stage that has any; empty before."""
        for stage in (self.stage, *reversed(self.metrics)):
            if self.metrics.get(stage):
                return self.metrics[stage][-1]
        return {}

    def newest_checkpoint(self, stage: str) -> Ref | None:
        """Data of the newest checkpoint of a stage; None when there is none."""
        return next((ref for ref in reversed(self.checkpoints) if ref["stage"] == stage), None)
