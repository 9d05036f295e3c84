"""PPO on a tiny model in one process: nothing but `quatrain.algorithms`, a sampler and two optimizers.

It shows what the formulas reach by themselves, so that a service which falls short of it has a fault outside of them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from quatrain.algorithms.advantages import EstimatorInputs, gae
from quatrain.algorithms.kl import kl_reward
from quatrain.algorithms.logprobs import token_logprobs
from quatrain.algorithms.losses import policy_loss_sum, value_loss_sum
from quatrain.algorithms.permutation import minibatches
from quatrain.algorithms.rewards import token_rewards
from quatrain.algorithms.schedules import lr_at
from quatrain.algorithms.scores import compose_score
from quatrain.algorithms.whitening import whiten


@dataclass(frozen=True)
class Settings:
    """Settings of a run. `reward` takes completion ids and gives the score before the penalty."""

    reward: Callable[[list[int]], float]
    vocab_size: int
    max_length: int
    beta: float = 0.5
    eos_id: int | None = None
    penalty: float = 0.0
    steps: int = 60
    sequences: int = 512
    epochs: int = 4
    minibatches: int = 4
    policy_lr: float = 1e-3
    value_lr: float = 3e-3
    seed: int = 0
    prompt: list[int] = field(default_factory=lambda: [1, 0])


class ValueModel(torch.nn.Module):
    """The same trunk with a zero head of one number."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        model = AutoModelForCausalLM.from_pretrained(folder)
        self.trunk = model.model
        self.head = torch.nn.Linear(model.config.hidden_size, 1)
        torch.nn.init.zeros_(self.head.weight)
        torch.nn.init.zeros_(self.head.bias)

    def forward(self, ids: Tensor) -> Tensor:
        """Return a value for each position, [B, n + T]."""
        values: Tensor = self.head(self.trunk(input_ids=ids, use_cache=False).last_hidden_state)[..., 0]
        return values


@dataclass(frozen=True)
class _Rollouts:
    ids: Tensor  # prompt and completion, [B, n + T]
    mask: Tensor
    lengths: Tensor
    scores: Tensor


def train(folder: Path, out: Path, settings: Settings) -> Path:
    """Train the model in `folder` against itself as the reference and save the result in `out`."""
    generator = torch.Generator().manual_seed(settings.seed)
    policy = AutoModelForCausalLM.from_pretrained(folder)
    value = ValueModel(folder)
    optimizers = [torch.optim.AdamW(m.parameters(), eps=1e-5, weight_decay=0.0) for m in (policy, value)]
    for step in range(settings.steps):
        for optimizer, base in zip(optimizers, (settings.policy_lr, settings.value_lr), strict=True):
            optimizer.param_groups[0]["lr"] = lr_at(step, settings.steps, base, "linear")
        rollouts = _sample(policy, settings, generator)
        _update(policy, value, optimizers, rollouts, settings, step)
    policy.save_pretrained(out)
    return out


@torch.no_grad()
def _sample(policy: torch.nn.Module, settings: Settings, generator: torch.Generator) -> _Rollouts:
    ids = torch.tensor(settings.prompt).expand(settings.sequences, -1)
    lengths = torch.zeros(settings.sequences, dtype=torch.long)
    going = torch.ones(settings.sequences, dtype=torch.bool)
    for _ in range(settings.max_length):
        logits = policy(input_ids=ids, use_cache=False).logits[:, -1]
        drawn = torch.multinomial(torch.softmax(logits, -1), 1, generator=generator)
        ids = torch.cat([ids, drawn], dim=1)
        lengths += going
        if settings.eos_id is not None:
            going = going & (drawn[:, 0] != settings.eos_id)
    n = len(settings.prompt)
    rows = [row[:length] for row, length in zip(ids[:, n:].tolist(), lengths.tolist(), strict=True)]
    truncated = going.tolist() if settings.eos_id is not None else [False] * len(rows)
    scores = [
        compose_score(settings.reward(row), 0.0, 1.0, None, settings.penalty, cut)
        for row, cut in zip(rows, truncated, strict=True)
    ]
    mask = torch.arange(settings.max_length) < lengths[:, None]
    return _Rollouts(ids, mask, lengths, torch.tensor(scores))


def _predict(policy: torch.nn.Module, ids: Tensor, n: int) -> Tensor:
    logits = policy(input_ids=ids, use_cache=False).logits[:, n - 1 : -1]
    return token_logprobs(logits, ids[:, n:], 1.0)


def _update(
    policy: torch.nn.Module,
    value: ValueModel,
    optimizers: list[torch.optim.AdamW],
    rollouts: _Rollouts,
    settings: Settings,
    step: int,
) -> None:
    n, mask = len(settings.prompt), rollouts.mask
    with torch.no_grad():
        old = _predict(policy, rollouts.ids, n)
        old_values = value(rollouts.ids)[:, n - 1 : -1]
    penalty = kl_reward(old, torch.full_like(old, -math.log(settings.vocab_size)), settings.beta, mask)
    rewards = token_rewards(rollouts.scores, penalty, rollouts.lengths)
    groups = torch.zeros(len(mask), dtype=torch.long)
    estimate = gae(EstimatorInputs(rewards, old_values, mask, groups, gamma=1.0, lam=0.95))
    advantages, returns = whiten(estimate.advantages_BT, mask), estimate.returns_BT
    assert returns is not None
    for epoch in range(settings.epochs):
        for rows in minibatches(len(mask), settings.minibatches, settings.seed, step, epoch):
            ids, part = rollouts.ids[rows], mask[rows]
            tokens = part.sum()
            policy_loss, _ = policy_loss_sum(
                _predict(policy, ids, n), old[rows], advantages[rows], None, part, 0.2, 0.2
            )
            value_loss, _ = value_loss_sum(value(ids)[:, n - 1 : -1], old_values[rows], returns[rows], part, 0.2)
            for loss, model, optimizer in zip((policy_loss, value_loss), (policy, value), optimizers, strict=True):
                optimizer.zero_grad()
                torch.autograd.backward(loss / tokens)
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
