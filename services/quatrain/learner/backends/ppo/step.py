"""What the parts of a PPO step share: its settings, signals and minibatches, and one update of one model.

Shape suffixes: N completion tokens of the step one after the other, M those of one microbatch.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, field

from torch import Tensor

from quatrain.algorithms.losses import PolicySums, ValueSums
from quatrain.algorithms.metrics import UpdateSums
from quatrain.algorithms.permutation import minibatches
from quatrain.algorithms.schedules import lr_at
from quatrain.jobspec.sections import PpoSpec
from quatrain.learner.backends import Check
from quatrain.learner.backends.optimizer import ModelOptimizer
from quatrain.learner.backends.ranks import ALONE, Ranks
from quatrain.learner.backends.tokens import Microbatch, TokenRows

LossOf = Callable[[Microbatch], tuple[Tensor, UpdateSums]]
"""The loss of a microbatch as a sum over its tokens, differentiable, and its statistics."""


@dataclass(frozen=True)
class Minibatch:
    """This rank's microbatches of one update. `tokens` counts those of all ranks: the normaliser of the gradient."""

    micros: Sequence[Microbatch]
    tokens: int


@dataclass(frozen=True)
class StepSettings:
    """What a step depends on besides models and rows. `kl_coef` is the coefficient of this step."""

    spec: PpoSpec
    step: int
    total_steps: int
    seed: int
    temperature: float
    kl_coef: float
    exact_logprobs: bool = False
    ranks: Ranks = ALONE

    @property
    def kl_coef_in_reward(self) -> float:
        """Return the KL coefficient if the penalty is in the reward, else 0."""
        return self.kl_coef if self.spec.kl.placement == "reward" else 0.0

    @property
    def kl_coef_in_loss(self) -> float:
        """Return the KL coefficient if the penalty is in the loss, else 0."""
        return self.kl_coef if self.spec.kl.placement == "loss" else 0.0

    @property
    def policy_learns(self) -> bool:
        """Return False in the first steps if only the value model learns in them."""
        return self.step > self.spec.optimizer.value_warmup_steps

    def lr(self, base: float) -> float:
        """Return the learning rate of this step."""
        optimizer = self.spec.optimizer
        return lr_at(self.step - 1, self.total_steps, base, optimizer.schedule, optimizer.warmup_steps)

    def minibatches(self, tokens: TokenRows, epoch: int) -> list[Minibatch]:
        """Return the minibatches of an epoch."""
        optimizer = self.spec.optimizer
        return [
            Minibatch(
                tokens.microbatches(tokens.shard(rows, self.ranks), optimizer.microbatch_tokens),
                sum(tokens.lengths[row] for row in rows),
            )
            for rows in minibatches(len(tokens.lengths), optimizer.minibatches, self.seed, self.step, epoch)
        ]


@dataclass(frozen=True, eq=False)
class Signals:
    """What a step learns from. Per token, [N] float32, detached.

    `values_N` and `returns_N` are None where there is no critic; `weights_N` None means 1 everywhere.
    """

    logprobs_N: Tensor
    entropy_N: Tensor
    values_N: Tensor | None
    advantages_N: Tensor
    returns_N: Tensor | None
    sampler_logprobs_N: Tensor
    ref_logprobs_N: Tensor
    weights_N: Tensor | None


@dataclass
class Norms:
    """Gradient norms of applied updates, weighted by tokens."""

    total: float = 0.0
    tokens: int = 0

    def add(self, norm: float, tokens: int) -> None:
        """Count one more update."""
        self.total += norm * tokens
        self.tokens += tokens

    @property
    def mean(self) -> float | None:
        """Return the token-weighted mean; None without an applied update."""
        return self.total / self.tokens if self.tokens else None


@dataclass
class UpdateResult:
    """What the updates of one model did in a step. `first` holds the sums of the first one, applied or skipped."""

    sums: UpdateSums = field(default_factory=UpdateSums)
    first: UpdateSums | None = None
    norm: Norms = field(default_factory=Norms)
    skipped: int = 0


def run_update(
    optimizer: ModelOptimizer,
    base_lr: float,
    batch: Minibatch,
    loss_of: LossOf,
    settings: StepSettings,
    result: UpdateResult,
    check: Check,
) -> UpdateSums:
    """Update a model on a minibatch and return the sums over all ranks, empty ones if the update was skipped."""
    sums = UpdateSums()
    for micro in batch.micros:
        check()
        loss, part = loss_of(micro)
        # The normaliser is the real tokens of the whole minibatch: the gradient does not depend on the microbatches.
        (loss / batch.tokens).backward()  # type: ignore[no-untyped-call]
        optimizer.accumulate()
        sums += part
    sums = _over_ranks(settings.ranks, sums)
    if result.first is None:
        result.first = sums
    finite = math.isfinite(sums.policy.loss + sums.kl + sums.entropy + sums.value.loss)
    norm = optimizer.update(settings.lr(base_lr), finite=finite)
    if norm is None:
        result.skipped += 1
        return UpdateSums()
    result.norm.add(norm, batch.tokens)
    result.sums += sums
    return sums


def _over_ranks(ranks: Ranks, sums: UpdateSums) -> UpdateSums:
    """Return the sums of all ranks together, added in the order of the ranks."""
    own = [*astuple(sums.policy), *astuple(sums.value), sums.kl, sums.entropy]
    end = len(astuple(sums.policy))
    total = UpdateSums()
    for values in ranks.all_gather(own):
        policy = PolicySums(int(values[0]), *values[1:end])
        total += UpdateSums(policy, ValueSums(int(values[end]), *values[end + 1 : -2]), values[-2], values[-1])
    return total
