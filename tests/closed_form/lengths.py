"""Judging a policy whose completions end early, when the tree is too large to enumerate and only length is rewarded.

The probability of ending may depend on the symbols before it, so 19^15 prefixes would matter. Three exact steps leave
little to chance (Rao-Blackwellisation):

1. Along any chain of symbols that never ends, the distribution of the length is known exactly from the hazards h_t =
   policy(end | first t symbols), and so is every step's KL. Only the *symbols* of the chain are random.
2. The first `depth` symbols are enumerated. Each prefix is a stratum with its exact weight; chains are drawn inside it.
3. The best policy's hazard depends on t alone, so gap = sum_t alive_t beta KL(policy(. | t symbols) || best(. | t)),
   and along every single chain objective + gap = best objective holds exactly. Near the optimum the gap is a sum of
   tiny terms of one sign, and its standard error vanishes with it.

With depth = max_length - 1 nothing is drawn and the result is exact. The reference is uniform.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from tests.closed_form.enumeration import Evaluation
from tests.closed_form.forms import LengthOptimum, LengthReward, length_optimum
from tests.closed_form.policies import Policy, folder_policy
from torch import Tensor

# Columns of what a chain adds up to.
REWARD, KL, GAP, LENGTH, TRUNCATED = range(5)


@dataclass(frozen=True)
class LengthTask:
    """What is judged, at rollout temperature 1 and against a uniform reference.

    Attributes:
        vocab_size: V, the end of sequence counted.
        max_length: Most tokens of a completion.
        reward: Reward of a length (end of sequence counted) and of whether the completion stopped by itself.
        beta: KL coefficient.
        eos_id: The symbol that ends a completion.
    """

    vocab_size: int
    max_length: int
    reward: LengthReward
    beta: float
    eos_id: int

    @cached_property
    def best(self) -> LengthOptimum:
        """The best policy."""
        return length_optimum(self.vocab_size, self.max_length, self.reward, self.beta)

    @property
    def symbols(self) -> Tensor:
        """All symbols but the end of sequence."""
        return torch.tensor([symbol for symbol in range(self.vocab_size) if symbol != self.eos_id])


def evaluate_lengths(
    folder: Path, prompt_ids: Sequence[int], task: LengthTask, *, depth: int = 2, samples: int = 4, seed: int = 0
) -> Evaluation:
    """Judge the model in a folder, whose vocabulary must be exactly the task's.

    Args:
        folder: Hugging Face causal LM.
        prompt_ids: What the completions follow.
        task: What is judged.
        depth: Symbols that are enumerated, 0 .. max_length - 1; (V - 1)^depth strata.
        samples: Chains drawn in each stratum, 2 or more.
        seed: Of the chains.
    """
    policy = folder_policy(folder, prompt_ids, task.vocab_size)
    return evaluate_length_policy(policy, task, depth=depth, samples=samples, seed=seed)


def evaluate_length_policy(
    policy: Policy, task: LengthTask, *, depth: int = 2, samples: int = 4, seed: int = 0
) -> Evaluation:
    """Judge a policy given as a function; see `evaluate_lengths`."""
    last = task.max_length - 1
    if not 0 <= depth <= last or samples < 2:
        raise ValueError(f"depth must lie in 0..{last} and samples be 2 or more, got {depth} and {samples}")
    prefixes = torch.zeros(1, 0, dtype=torch.long)
    alive = torch.ones(1, dtype=torch.float64)
    total = torch.zeros(5, dtype=torch.float64)
    for t in range(depth):
        logprobs = policy(prefixes)
        total += (alive[:, None] * _at(task, t, logprobs)).sum(0)
        alive = (alive[:, None] * logprobs[:, task.symbols].exp()).flatten()
        grown = task.symbols.repeat(len(prefixes))[:, None]
        prefixes = torch.cat([prefixes.repeat_interleave(len(task.symbols), 0), grown], dim=1)
    if depth == last:
        total += (alive[:, None] * _at(task, depth, policy(prefixes))).sum(0)
        return _evaluation(task, total, torch.zeros_like(total))
    chains = _chains(policy, task, prefixes.repeat_interleave(samples, 0), seed).view(len(prefixes), samples, 5)
    total += (alive[:, None] * chains.mean(1)).sum(0)
    variance = (alive[:, None].square() * chains.var(1) / samples).sum(0)
    return _evaluation(task, total, variance.sqrt())


def _chains(policy: Policy, task: LengthTask, prefixes: Tensor, seed: int) -> Tensor:
    """Continue each prefix by symbols that do not end it; return what follows, averaged over lengths, [N, 5]."""
    generator = torch.Generator().manual_seed(seed)
    sums = torch.zeros(len(prefixes), 5, dtype=torch.float64)
    alive = torch.ones(len(prefixes), dtype=torch.float64)
    for t in range(prefixes.shape[1], task.max_length):
        logprobs = policy(prefixes)
        sums += alive[:, None] * _at(task, t, logprobs)
        going = logprobs[:, task.symbols].exp()
        alive = alive * going.sum(1)
        drawn = task.symbols[torch.multinomial(going, 1, generator=generator)]
        prefixes = torch.cat([prefixes, drawn], dim=1)
    return sums


def _at(task: LengthTask, t: int, logprobs: Tensor) -> Tensor:
    """Return what the step after t symbols adds for a completion that has got so far, [N, 5]."""
    hazard = logprobs[:, task.eos_id].exp()
    going = logprobs[:, task.symbols].exp().sum(1)
    kl = (logprobs.exp() * (logprobs + math.log(task.vocab_size))).sum(1)
    other = math.log((1 - task.best.hazards[t]) / (task.vocab_size - 1))
    best = torch.full((task.vocab_size,), other, dtype=torch.float64)
    best[task.eos_id] = math.log(task.best.hazards[t])
    gap = task.beta * (logprobs.exp() * (logprobs - best)).sum(1)
    reward, length, cut = hazard * task.reward(t + 1, True), hazard * (t + 1), torch.zeros_like(hazard)
    if t == task.max_length - 1:
        reward, length, cut = reward + going * task.reward(t + 1, False), length + going * (t + 1), going
    return torch.stack([reward, kl, gap, length, cut], dim=1)


def _evaluation(task: LengthTask, total: Tensor, errors: Tensor) -> Evaluation:
    values, se = total.tolist(), errors.tolist()
    return Evaluation(
        expected_reward=values[REWARD],
        kl=values[KL],
        objective=values[REWARD] - task.beta * values[KL],
        gap=values[GAP],
        mean_length=values[LENGTH],
        truncated=values[TRUNCATED],
        expected_reward_se=se[REWARD],
        kl_se=se[KL],
        gap_se=se[GAP],
    )
