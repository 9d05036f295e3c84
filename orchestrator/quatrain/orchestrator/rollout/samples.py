"""Samples on their way through the queue, as values: what is expected, what a task asks for, and its results.

`wire` knows how they are sent.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from quatrain.orchestrator.peers.service_clients import FinishReason, Outcome, Sampling
from quatrain.refs import ModelRef, ObjectRef

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
Purpose = Literal["rollout", "eval", "offset"]
"""What samples are for: a PPO step, an evaluation, or the offset that centres a reward model."""


@dataclass(frozen=True, slots=True)
class ExpectedSample:
    """One sample that a batch consists of. `rollout_id` and `seed` are the same however often the sample is made."""

    rollout_id: str
    prompt_index: int
    """Row of the prompt in the prompt table."""
    sample_index: int
    """Which completion of the prompt, from 0."""
    seed: int


@dataclass(frozen=True)
class Scoring:
    """One way to score the samples of a batch: `score`, or `gold` in evaluations."""

    name: str
    reward_json: str
    missing_eos_penalty: float


@dataclass(frozen=True)
class RolloutTask:
    """A chunk of a batch, as a worker leases it."""

    job: str
    purpose: Purpose
    step: int
    chunk: int
    epoch: int
    """Epoch of the owner that enqueued it."""
    nonce: str
    """Unique for each enqueueing: rollout ids can repeat after the queue was wiped."""
    policy: ModelRef
    sampling: Sampling
    dtype: str
    prompts: ObjectRef
    samples: tuple[ExpectedSample, ...]
    reference: ModelRef | None
    """None: no reference logprobs are wanted."""
    scorings: tuple[Scoring, ...]
    trainer_state_json: str
    tokenizer: ModelRef
    deadline_seconds: float
    """How long the whole task may take."""


@dataclass(frozen=True)
class ScoreOutcome:
    """The answer of one scoring about a sample. `outcome` is empty when the reward service said nothing known."""

    name: str
    outcome: Outcome
    reason: str = ""
    score: float | None = None
    terms: tuple[tuple[str, float | None], ...] = ()
    logged_json: str = ""


@dataclass(frozen=True, eq=False)
class Rollout:
    """One sample as it was made: its tokens, their logprobs under sampler and reference, and its scores.

    Arrays are as they came over the wire: whoever trains on them checks lengths and values first.
    """

    sample: ExpectedSample
    policy: ModelRef
    completion_ids: Ints
    logprobs: Floats
    ref_logprobs: Floats
    finish_reason: FinishReason
    scores: tuple[ScoreOutcome, ...] = ()

    def scored(self, name: str) -> ScoreOutcome | None:
        """Return what the scoring of this name said."""
        return next((outcome for outcome in self.scores if outcome.name == name), None)


@dataclass(frozen=True)
class ChunkWork:
    """How a chunk was made: seconds that the services computed, and what reward functions logged for all of it."""

    generate_seconds: float = 0.0
    score_seconds: float = 0.0
    reference_seconds: float = 0.0
    reward_metrics: tuple[tuple[str, float | None], ...] = ()
    made_by: str = ""
    """Name of the worker, for people only."""


@dataclass(frozen=True)
class Place:
    """The place of a result: the chunk of a batch of a job, made by one policy version."""

    job: str
    purpose: Purpose
    step: int
    chunk: int
    policy: ModelRef

    @property
    def batch(self) -> tuple[Purpose, int]:
        """Return what tells its batch from the others of the job."""
        return self.purpose, self.step


@dataclass(frozen=True)
class Made:
    """A sample was made."""

    place: Place
    rollout: Rollout
    work: ChunkWork


@dataclass(frozen=True)
class Stored:
    """A sample was made and lies in an object, because it is too large for the queue."""

    place: Place
    sample: ExpectedSample
    object: ObjectRef
    made_by: str


@dataclass(frozen=True)
class Failed:
    """A task failed for good."""

    place: Place
    reason: str
    message: str
    made_by: str


Result = Made | Stored | Failed
"""The kinds of entries that a worker puts into the queue for the owner."""
