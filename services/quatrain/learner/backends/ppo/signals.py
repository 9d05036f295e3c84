"""What a PPO step learns from, fixed before its first update: proximal logprobs, values, advantages, returns, weights.

Shape suffixes: B rows, T positions, N completion tokens of the step one after the other, M those of one microbatch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from quatrain.algorithms.advantages import ESTIMATORS
from quatrain.algorithms.kl import kl_reward
from quatrain.algorithms.losses import importance_weights
from quatrain.algorithms.metrics import mismatch
from quatrain.algorithms.rewards import token_rewards
from quatrain.algorithms.whitening import whiten
from quatrain.jobspec.sections import PpoSpec
from quatrain.learner.backends import Check
from quatrain.learner.backends.lanes import TwoLanes
from quatrain.learner.backends.ppo.critic import ValueModel
from quatrain.learner.backends.ppo.rows import PpoRows
from quatrain.learner.backends.ranks import ALONE, Ranks
from quatrain.learner.backends.tokens import Microbatch, TokenRows
from quatrain.models.logprobs import head_logprobs
from quatrain.models.sequences import output_head

# Largest |l - b| in nats at which the sampler's logprobs count as exact. Float32 engines stay below 1e-4; beyond this
# bound (a replay on a GPU that diverged, a bfloat16 policy) the importance weights are needed even at staleness 0.
EXACT_MISMATCH = 1e-3


@dataclass(frozen=True, eq=False)
class Signals:
    """Per token, [N] float32, detached. `weights_N` None means 1 everywhere."""

    logprobs_N: Tensor
    entropy_N: Tensor
    values_N: Tensor
    advantages_N: Tensor
    returns_N: Tensor
    sampler_logprobs_N: Tensor
    ref_logprobs_N: Tensor
    weights_N: Tensor | None


@dataclass(frozen=True)
class SignalPlan:
    """What the signals depend on besides models and rows.

    The proximal pass runs over this rank's microbatches of the first epoch: then the ratio of the first minibatch is 1
    to the last bit, where another split would leave the rounding of another matrix shape.
    """

    settings: PpoSpec
    temperature: float
    kl_coef: float
    exact_logprobs: bool
    microbatches: Sequence[Microbatch]
    ranks: Ranks = ALONE


@torch.no_grad()
def compute_signals(
    policy: PreTrainedModel,
    value: ValueModel,
    tokens: TokenRows,
    rows: PpoRows,
    plan: SignalPlan,
    lanes: TwoLanes,
    check: Check,
) -> Signals:
    """Recomputes l with the training weights and turns scores into whitened advantages (algorithms section 2)."""
    (logprobs_N, entropy_N), values_N = lanes.run(
        partial(_proximal, policy, tokens, plan, check), partial(_values, value, tokens, plan, check)
    )
    plan.ranks.all_reduce_sum([logprobs_N, entropy_N, values_N])  # Each is zero where another rank has the row.
    sampler_N = tokens.join([row.logprobs for row in rows.rollouts])
    ref_N = tokens.join([row.ref_logprobs for row in rows.rollouts])
    advantages_N, returns_N = _advantages(tokens, rows, plan, logprobs_N, ref_N, values_N)
    return Signals(
        logprobs_N=logprobs_N,
        entropy_N=entropy_N,
        values_N=values_N,
        advantages_N=advantages_N,
        returns_N=returns_N,
        sampler_logprobs_N=sampler_N,
        ref_logprobs_N=ref_N,
        weights_N=_weights(rows, plan, logprobs_N, sampler_N),
    )


@torch.no_grad()
def _proximal(policy: PreTrainedModel, tokens: TokenRows, plan: SignalPlan, check: Check) -> tuple[Tensor, Tensor]:
    """Logprobs and entropies [N]."""
    logprobs_N, entropy_N = (torch.zeros(sum(tokens.lengths), device=tokens.device) for _ in range(2))
    for micro in plan.microbatches:
        check()
        logprobs_N[micro.token_M], entropy_N[micro.token_M] = head_logprobs(
            micro.hidden(policy), output_head(policy), micro.targets_M, temperature=plan.temperature
        )
    return logprobs_N, entropy_N


@torch.no_grad()
def _values(value: ValueModel, tokens: TokenRows, plan: SignalPlan, check: Check) -> Tensor:
    """Values [N]."""
    values_N = torch.zeros(sum(tokens.lengths), device=tokens.device)
    for micro in plan.microbatches:
        check()
        values_N[micro.token_M] = value.values(micro.hidden(value.backbone))
    return values_N


def _advantages(
    tokens: TokenRows, rows: PpoRows, plan: SignalPlan, logprobs_N: Tensor, ref_N: Tensor, values_N: Tensor
) -> tuple[Tensor, Tensor]:
    settings = plan.settings.advantage
    mask_BT = tokens.mask_BT
    if not mask_BT.shape[0]:
        return values_N, values_N
    beta = plan.kl_coef if plan.settings.kl.placement == "reward" else 0.0
    kl_BT = kl_reward(tokens.padded(logprobs_N), tokens.padded(ref_N), beta, mask_BT)
    rewards_BT = token_rewards(
        torch.tensor(rows.scores, dtype=torch.float32, device=tokens.device),
        kl_BT,
        torch.tensor(tokens.lengths, device=tokens.device),
    )
    advantages_BT, returns_BT = ESTIMATORS[settings.estimator](
        rewards_BT, tokens.padded(values_N), mask_BT, settings.gamma, settings.lam
    )
    if settings.whiten:
        advantages_BT = whiten(advantages_BT, mask_BT)
    return tokens.flat(advantages_BT), tokens.flat(returns_BT)


def _weights(rows: PpoRows, plan: SignalPlan, logprobs_N: Tensor, sampler_N: Tensor) -> Tensor | None:
    measured = mismatch(logprobs_N, sampler_N, torch.ones_like(logprobs_N, dtype=torch.bool))
    if measured is None:
        return None
    if plan.exact_logprobs and not any(rows.staleness) and measured[1] <= EXACT_MISMATCH:
        return None
    return importance_weights(logprobs_N, sampler_N, plan.settings.importance_cap)
