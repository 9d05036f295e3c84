"""The updates of a PPO step: epochs over minibatches, each accumulated over microbatches by real token count."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from quatrain.algorithms.losses import PolicySums, entropy_sum, kl_loss_sum, policy_loss_sum
from quatrain.algorithms.metrics import UpdateSums
from quatrain.learner.backends import Check
from quatrain.learner.backends.lanes import TwoLanes
from quatrain.learner.backends.ppo.critic import Critic
from quatrain.learner.backends.ppo.step import Minibatch, Signals, StepSettings, UpdateResult, run_update
from quatrain.learner.backends.state import Part
from quatrain.learner.backends.tokens import Microbatch, TokenRows
from quatrain.models.logprobs import head_logprobs
from quatrain.models.output_head import output_head


@dataclass(frozen=True)
class Policy(Part):
    """The policy in training and its optimizer."""

    model: PreTrainedModel


def run_updates(
    policy: Policy,
    critic: Critic,
    tokens: TokenRows,
    signals: Signals,
    settings: StepSettings,
    lanes: TwoLanes,
    check: Check,
) -> tuple[UpdateResult, UpdateResult]:
    """Train policy and critic on the step, each in a lane; return what the updates of each did.

    Raises RunFailed after too many skipped updates in a row.
    """
    by_policy, by_critic = UpdateResult(), UpdateResult()
    optimizer = settings.spec.optimizer
    for epoch in range(optimizer.epochs):
        batches = settings.minibatches(tokens, epoch)
        in_epoch, _ = lanes.run(
            partial(_policy_epoch, policy, batches, signals, settings, by_policy, check),
            partial(critic.train_epoch, batches, signals, settings, by_critic, check),
        )
        if _moved_enough(in_epoch, optimizer.target_kl):
            break
    return by_policy, by_critic


def _policy_epoch(
    policy: Policy,
    batches: Sequence[Minibatch],
    signals: Signals,
    settings: StepSettings,
    result: UpdateResult,
    check: Check,
) -> PolicySums:
    sums = PolicySums()
    loss_of = partial(_policy_loss, policy.model, signals, settings)
    for batch in batches if settings.policy_learns else ():
        base_lr = settings.spec.optimizer.policy_lr
        sums += run_update(policy.optimizer, base_lr, batch, loss_of, settings, result, check).policy
    return sums


def _moved_enough(in_epoch: PolicySums, target_kl: float | None) -> bool:
    return target_kl is not None and in_epoch.tokens > 0 and in_epoch.approx_kl / in_epoch.tokens > target_kl


def _policy_loss(
    model: PreTrainedModel, signals: Signals, settings: StepSettings, micro: Microbatch
) -> tuple[Tensor, UpdateSums]:
    spec, beta = settings.spec, settings.kl_coef_in_loss
    wants_entropy = spec.entropy_coef > 0
    new_M, entropy_M = head_logprobs(
        micro.hidden(model),
        output_head(model),
        micro.targets_M,
        temperature=settings.temperature,
        want_entropy=wants_entropy,
    )
    old_M = signals.logprobs_N[micro.token_M]
    weights_M = None if signals.weights_N is None else signals.weights_N[micro.token_M]
    mask_M = torch.ones_like(old_M, dtype=torch.bool)
    loss, policy = policy_loss_sum(
        new_M,
        old_M,
        signals.advantages_N[micro.token_M],
        weights_M,
        mask_M,
        spec.clip.low,
        spec.clip.high,
        spec.clip.dual,
    )
    kl = entropy = 0.0
    if beta:
        ref_M = signals.ref_logprobs_N[micro.token_M]
        kl_sum = kl_loss_sum(new_M, old_M, ref_M, weights_M, mask_M, spec.kl.estimator)
        loss = loss + beta * kl_sum
        kl = float(kl_sum.detach())
    if wants_entropy:
        bonus = entropy_sum(entropy_M, mask_M)
        loss = loss - spec.entropy_coef * bonus
        entropy = float(bonus.detach())
    return loss, UpdateSums(policy=policy, kl=kl, entropy=entropy)
