"""What goes into the learner and comes out of it, as plain dataclasses; the servicer translates them to protobuf."""

from collections.abc import Mapping
from dataclasses import dataclass

from quatrain.refs import ModelRef, ObjectRef
from quatrain.stages import Stage


@dataclass(frozen=True)
class Token:
    """Proof of ownership of a job. Of two tokens of one job the one with the higher `precedence` is the newer."""

    job: str
    epoch: int
    attempt: int

    @property
    def precedence(self) -> tuple[int, int]:
        """Return owner epoch and learner attempt, by which tokens are compared in this order."""
        return (self.epoch, self.attempt)

    def __str__(self) -> str:
        return f"job {self.job} epoch {self.epoch} attempt {self.attempt}"


@dataclass(frozen=True)
class OpenRequest:
    """Everything that opening a stage needs; learner.proto, OpenRequest, says what each field means.

    `config_json` is read by the backend, which knows the section of each stage.
    """

    token: Token
    stage: Stage
    config_json: str
    model: ModelRef
    total_steps: int
    seed: int
    value_model: ModelRef | None = None
    value_scale: float = 1.0
    value_offset: float = 0.0
    data: ObjectRef | None = None
    held_out: ObjectRef | None = None
    dtype: str = ""
    deterministic: bool = False
    checkpoint: ObjectRef | None = None
    tokenizer: ModelRef | None = None
    exact_logprobs: bool = False
    temperature: float = 1.0


@dataclass(frozen=True)
class StepOutcome:
    """The result of one step: metrics under the names of docs/metrics.md (None: not defined for this step)."""

    step: int
    metrics: Mapping[str, float | None]
    tokens: ObjectRef | None
    compute_seconds: float


@dataclass(frozen=True)
class ExportedModel:
    """An exported folder; `weights_sha256` is over the weight files in name order."""

    model: ModelRef
    weights_sha256: str


@dataclass(frozen=True)
class Status:
    """Who holds the learner and where it is. `running_step` 0 means that no step runs."""

    learner_id: str
    device: str
    token: Token | None = None
    stage: Stage | None = None
    step: int = 0
    policy_version: int = 0
    running_step: int = 0
