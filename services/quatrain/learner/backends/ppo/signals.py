"""What a PPO step learns from, fixed before its first update: proximal logprobs, values, advantages, returns, weights.

Shape suffixes: B rows, T positions, N completion tokens of the step one after the other, M those of one microbatch.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from quatrain.algorithms.advantages import EstimatorInputs, estimator_named
from quatrain.algorithms.kl import kl_reward
from quatrain.algorithms.losses import importance_weights
from quatrain.algorithms.metrics import mismatch
from quatrain.algorithms.rewards import token_rewards
from quatrain.algorithms.whitening import whiten
from quatrain.learner.backends import Check
from quatrain.learner.backends.lanes import TwoLanes
from quatrain.learner.backends.ppo.critic import Critic
from quatrain.learner.backends.ppo.rows import PpoRows
from quatrain.learner.backends.ppo.step import Signals, StepSettings
from quatrain.learner.backends.tokens import Microbatch, TokenRows
from quatrain.models.logprobs import head_logprobs
from quatrain.models.output_head import output_head

# Largest difference of the learner's and the sampler's logprobs, in nats, at which they count as exact. Float32 engines
# stay below 1e-4; beyond this bound (a replay on a GPU that diverged, a bfloat16 policy) the importance weights are
# needed even at staleness 0.
EXACT_MISMATCH = 1e-3


@torch.no_grad()
def compute_signals(
    policy: PreTrainedModel,
    critic: Critic,
    tokens: TokenRows,
    rows: PpoRows,
    settings: StepSettings,
    lanes: TwoLanes,
    check: Check,
) -> Signals:
    """Recompute the logprobs with the training weights, and turn scores into advantages, whitened if the spec says so.

    The passes run over this rank's microbatches of the first epoch: then the ratio of the first minibatch is 1 to the
    last bit, where another split would leave the rounding of another matrix shape.
    """
    micros = [micro for batch in settings.minibatches(tokens, 0) for micro in batch.micros]
    (logprobs_N, entropy_N), values_N = lanes.run(
        partial(_proximal, policy, tokens, micros, settings.temperature, check),
        partial(critic.values, tokens, micros, check),
    )
    # Each is zero where another rank has the row.
    settings.ranks.all_reduce_sum([x_N for x_N in (logprobs_N, entropy_N, values_N) if x_N is not None])
    sampler_N = tokens.join([row.logprobs for row in rows.rollouts])
    ref_N = tokens.join([row.ref_logprobs for row in rows.rollouts])
    advantages_N, returns_N = _advantages(tokens, rows, settings, logprobs_N, ref_N, values_N)
    return Signals(
        logprobs_N=logprobs_N,
        entropy_N=entropy_N,
        values_N=values_N,
        advantages_N=advantages_N,
        returns_N=returns_N,
        sampler_logprobs_N=sampler_N,
        ref_logprobs_N=ref_N,
        weights_N=_weights(rows, settings, logprobs_N, sampler_N),
    )


@torch.no_grad()
def _proximal(
    policy: PreTrainedModel, tokens: TokenRows, micros: Sequence[Microbatch], temperature: float, check: Check
) -> tuple[Tensor, Tensor]:
    """Return logprobs and entropies, [N]."""
    logprobs_N, entropy_N = (torch.zeros(sum(tokens.lengths), device=tokens.device) for _ in range(2))
    for micro in micros:
        check()
        logprobs_N[micro.token_M], entropy_N[micro.token_M] = head_logprobs(
            micro.hidden(policy), output_head(policy), micro.targets_M, temperature=temperature
        )
    return logprobs_N, entropy_N


def _advantages(
    tokens: TokenRows,
    rows: PpoRows,
    settings: StepSettings,
    logprobs_N: Tensor,
    ref_N: Tensor,
    values_N: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """Return advantages and, where there is a critic, the returns that it learns to predict, both [N]."""
    spec = settings.spec.advantage
    mask_BT = tokens.mask_BT
    if not mask_BT.shape[0]:
        return torch.zeros_like(logprobs_N), values_N  # Without rows both are empty.
    kl_BT = kl_reward(tokens.padded(logprobs_N), tokens.padded(ref_N), settings.kl_coef_in_reward, mask_BT)
    rewards_BT = token_rewards(
        torch.tensor(rows.scores, dtype=torch.float32, device=tokens.device),
        kl_BT,
        torch.tensor(tokens.lengths, device=tokens.device),
    )
    estimate = estimator_named(spec.estimator).estimate(
        EstimatorInputs(
            rewards_BT=rewards_BT,
            values_BT=None if values_N is None else tokens.padded(values_N),
            mask_BT=mask_BT,
            groups_B=torch.tensor(rows.groups, dtype=torch.long, device=tokens.device),
            gamma=spec.gamma,
            lam=spec.lam,
        )
    )
    advantages_BT, returns_BT = estimate.advantages_BT, estimate.returns_BT
    if spec.whiten:
        advantages_BT = whiten(advantages_BT, mask_BT)
    return tokens.flat(advantages_BT), None if returns_BT is None else tokens.flat(returns_BT)


def _weights(rows: PpoRows, settings: StepSettings, logprobs_N: Tensor, sampler_N: Tensor) -> Tensor | None:
    measured = mismatch(logprobs_N, sampler_N, torch.ones_like(logprobs_N, dtype=torch.bool))
    if measured is None:
        return None
    if settings.exact_logprobs and not any(rows.staleness) and measured[1] <= EXACT_MISMATCH:
        return None
    return importance_weights(logprobs_N, sampler_N, settings.spec.importance_cap)
