"""The updates of a PPO step: epochs over minibatches, each accumulated over microbatches by real token count.

Shape suffixes: N completion tokens of the step, M those of one microbatch.
"""

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from quatrain.algorithms.losses import PolicySums, ValueSums, entropy_sum, kl_loss_sum, policy_loss_sum, value_loss_sum
from quatrain.algorithms.metrics import UpdateSums
from quatrain.algorithms.permutation import minibatches
from quatrain.jobspec.sections import PpoSpec
from quatrain.learner.backends import Check
from quatrain.learner.backends.lanes import TwoLanes
from quatrain.learner.backends.optimizer import ModelOptimizer
from quatrain.learner.backends.ppo.critic import ValueModel
from quatrain.learner.backends.ppo.signals import Signals
from quatrain.learner.backends.ranks import ALONE, Ranks
from quatrain.learner.backends.tokens import Microbatch, TokenRows
from quatrain.models.logprobs import head_logprobs
from quatrain.models.sequences import output_head


@dataclass(frozen=True)
class Trainee:
    """A model, its optimizer and this step's learning rate."""

    optimizer: ModelOptimizer
    lr: float


@dataclass(frozen=True)
class Policy(Trainee):
    """The policy in training."""

    model: PreTrainedModel


@dataclass(frozen=True)
class Value(Trainee):
    """The value model in training."""

    model: ValueModel


@dataclass(frozen=True)
class Minibatch:
    """This rank's microbatches of one update. `tokens` counts those of all ranks: the normaliser of the gradient."""

    micros: Sequence[Microbatch]
    tokens: int


@dataclass(frozen=True)
class UpdatePlan:
    """What the updates depend on besides models and signals. `kl_coef` is 0 unless the penalty is in the loss."""

    settings: PpoSpec
    temperature: float
    kl_coef: float
    seed: int
    step: int
    ranks: Ranks = ALONE

    @property
    def policy_learns(self) -> bool:
        """False in the first steps in which only the value model learns."""
        return self.step > self.settings.optimizer.value_warmup_steps

    def minibatches(self, tokens: TokenRows, epoch: int) -> list[Minibatch]:
        """The minibatches of an epoch."""
        settings = self.settings.optimizer
        return [
            Minibatch(
                tokens.microbatches(tokens.shard(rows, self.ranks), settings.microbatch_tokens),
                sum(tokens.lengths[row] for row in rows),
            )
            for rows in minibatches(len(tokens.lengths), settings.minibatches, self.seed, self.step, epoch)
        ]


@dataclass
class Norms:
    """Gradient norms of applied updates, weighted by tokens."""

    total: float = 0.0
    tokens: int = 0

    def add(self, norm: float, tokens: int) -> None:
        """One more update."""
        self.total += norm * tokens
        self.tokens += tokens

    @property
    def mean(self) -> float | None:
        """Token-weighted mean; None without an applied update."""
        return self.total / self.tokens if self.tokens else None


@dataclass
class UpdateResult:
    """What all updates of a step did; `first` is the first minibatch of the first epoch."""

    sums: UpdateSums = field(default_factory=UpdateSums)
    first: PolicySums | None = None
    policy_norm: Norms = field(default_factory=Norms)
    value_norm: Norms = field(default_factory=Norms)
    skipped: int = 0
    trained_tokens: int = 0

    def joined(self, other: "UpdateResult") -> "UpdateResult":
        """What the policy's updates (`self`) and the value model's (`other`) did together."""
        return UpdateResult(
            sums=self.sums + other.sums,
            first=self.first,
            policy_norm=self.policy_norm,
            value_norm=other.value_norm,
            skipped=self.skipped + other.skipped,
            trained_tokens=self.trained_tokens + other.trained_tokens,
        )


def run_updates(
    policy: Policy, value: Value, tokens: TokenRows, signals: Signals, plan: UpdatePlan, lanes: TwoLanes, check: Check
) -> UpdateResult:
    """Trains both models on the step, each in a lane. Raises RunFailed after too many skipped updates in a row."""
    by_policy, by_value = UpdateResult(), UpdateResult()
    settings = plan.settings.optimizer
    for epoch in range(settings.epochs):
        batches = plan.minibatches(tokens, epoch)
        in_epoch, _ = lanes.run(
            partial(_policy_epoch, policy, batches, signals, plan, by_policy, check),
            partial(_value_epoch, value, batches, signals, plan, by_value, check),
        )
        if _moved_enough(in_epoch, settings.target_kl):
            break
    return by_policy.joined(by_value)


def _policy_epoch(
    policy: Policy,
    batches: Sequence[Minibatch],
    signals: Signals,
    plan: UpdatePlan,
    updated: UpdateResult,
    check: Check,
) -> PolicySums:
    sums = PolicySums()
    for batch in batches if plan.policy_learns else ():
        sums += _update_policy(policy, batch, signals, plan, updated, check)
    return sums


def _value_epoch(
    value: Value,
    batches: Sequence[Minibatch],
    signals: Signals,
    plan: UpdatePlan,
    updated: UpdateResult,
    check: Check,
) -> None:
    for batch in batches:
        _update_value(value, batch, signals, plan, updated, check)


def _moved_enough(in_epoch: PolicySums, target_kl: float | None) -> bool:
    return target_kl is not None and in_epoch.tokens > 0 and in_epoch.approx_kl / in_epoch.tokens > target_kl


def _update_policy(
    policy: Policy, batch: Minibatch, signals: Signals, plan: UpdatePlan, updated: UpdateResult, check: Check
) -> PolicySums:
    """One update of the policy; returns its sums, empty when it was skipped."""
    # The normaliser is the real tokens of the whole minibatch, so the gradient does not depend on the microbatches.
    sums = UpdateSums()
    for micro in batch.micros:
        check()
        loss, part = _policy_loss(policy.model, micro, signals, plan)
        (loss / batch.tokens).backward()  # type: ignore[no-untyped-call]
        policy.optimizer.accumulate()
        sums += part
    sums = _over_ranks(plan.ranks, sums)
    if updated.first is None:
        updated.first = sums.policy
    updated.trained_tokens += batch.tokens
    norm = policy.optimizer.update(policy.lr, finite=math.isfinite(sums.policy.loss + sums.kl + sums.entropy))
    if norm is None:
        updated.skipped += 1
        return PolicySums()
    updated.policy_norm.add(norm, batch.tokens)
    updated.sums += sums
    return sums.policy


def _policy_loss(
    model: PreTrainedModel, micro: Microbatch, signals: Signals, plan: UpdatePlan
) -> tuple[Tensor, UpdateSums]:
    settings = plan.settings
    wants_entropy = settings.entropy_coef > 0
    new_M, entropy_M = head_logprobs(
        micro.hidden(model),
        output_head(model),
        micro.targets_M,
        temperature=plan.temperature,
        want_entropy=wants_entropy,
    )
    old_M = signals.logprobs_N[micro.token_M]
    weights_M = None if signals.weights_N is None else signals.weights_N[micro.token_M]
    mask_M = torch.ones_like(old_M, dtype=torch.bool)
    clip = settings.clip
    loss, policy = policy_loss_sum(
        new_M, old_M, signals.advantages_N[micro.token_M], weights_M, mask_M, clip.low, clip.high, clip.dual
    )
    kl = entropy = 0.0
    if plan.kl_coef:
        ref_M = signals.ref_logprobs_N[micro.token_M]
        kl_sum = kl_loss_sum(new_M, old_M, ref_M, weights_M, mask_M, settings.kl.estimator)
        loss = loss + plan.kl_coef * kl_sum
        kl = float(kl_sum.detach())
    if wants_entropy:
        bonus = entropy_sum(entropy_M, mask_M)
        loss = loss - settings.entropy_coef * bonus
        entropy = float(bonus.detach())
    return loss, UpdateSums(policy=policy, kl=kl, entropy=entropy)


def _update_value(
    value: Value, batch: Minibatch, signals: Signals, plan: UpdatePlan, updated: UpdateResult, check: Check
) -> None:
    sums = UpdateSums()
    for micro in batch.micros:
        check()
        new_M = value.model.values(micro.hidden(value.model.backbone))
        mask_M = torch.ones_like(new_M, dtype=torch.bool)
        loss, part = value_loss_sum(
            new_M, signals.values_N[micro.token_M], signals.returns_N[micro.token_M], mask_M, plan.settings.clip.value
        )
        (loss / batch.tokens).backward()  # type: ignore[no-untyped-call]
        value.optimizer.accumulate()
        sums += UpdateSums(value=part)
    sums = _over_ranks(plan.ranks, sums)
    updated.trained_tokens += batch.tokens
    norm = value.optimizer.update(value.lr, finite=math.isfinite(sums.value.loss))
    if norm is None:
        updated.skipped += 1
        return
    updated.value_norm.add(norm, batch.tokens)
    updated.sums += sums


def _over_ranks(ranks: Ranks, sums: UpdateSums) -> UpdateSums:
    """The sums of all ranks together, summed in their order."""
    own = [*astuple(sums.policy), *astuple(sums.value), sums.kl, sums.entropy]
    end = len(astuple(sums.policy))
    total = UpdateSums()
    for values in ranks.all_gather(own):
        policy = PolicySums(int(values[0]), *values[1:end])
        total += UpdateSums(policy, ValueSums(int(values[end]), *values[end + 1 : -2]), values[-2], values[-1])
    return total
