"""Judging a policy by enumerating every completion: expected reward, KL, objective, distance from the best."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tests.closed_form.policies import Policy, folder_policy, uniform_policy
from torch import Tensor

# Completion ids and whether it stopped by itself -> reward, penalties included.
Reward = Callable[[tuple[int, ...], bool], float]

LARGEST_TREE = 1_000_000


@dataclass(frozen=True)
class Evaluation:
    """What a policy achieves. KL in nats per sequence; gap = best objective - objective = beta KL(policy || best) >= 0.

    The `_se` are standard errors, 0 where every completion was enumerated.
    """

    expected_reward: float
    kl: float
    objective: float
    gap: float
    mean_length: float
    truncated: float
    expected_reward_se: float = 0.0
    kl_se: float = 0.0
    gap_se: float = 0.0


@dataclass(frozen=True)
class _Leaves:
    """Completions that have ended: their ids, whether they stopped, and logprobs under policy and reference."""

    ids: Tensor
    stopped: bool
    logprobs: Tensor
    ref_logprobs: Tensor


def evaluate(
    folder: Path,
    prompt_ids: Sequence[int],
    vocab_size: int,
    max_length: int,
    reward: Reward,
    beta: float,
    *,
    reference: Path | None = None,
    eos_ids: Sequence[int] = (),
) -> Evaluation:
    """Judge the model in a folder, rollout temperature 1.

    Args:
        folder: Hugging Face causal LM with a vocabulary of exactly `vocab_size`.
        prompt_ids: What the completions follow.
        vocab_size: V.
        max_length: L, most tokens of a completion.
        reward: Reward of a completion.
        beta: KL coefficient.
        reference: Folder of the reference; None is uniform over the V symbols.
        eos_ids: Symbols that end a completion; none for completions of fixed length.
    """
    policy = folder_policy(folder, prompt_ids, vocab_size)
    ref = uniform_policy(vocab_size) if reference is None else folder_policy(reference, prompt_ids, vocab_size)
    return evaluate_policy(policy, ref, vocab_size, max_length, reward, beta, eos_ids=eos_ids)


def evaluate_policy(
    policy: Policy,
    reference: Policy,
    vocab_size: int,
    max_length: int,
    reward: Reward,
    beta: float,
    *,
    eos_ids: Sequence[int] = (),
) -> Evaluation:
    """Judge a policy given as a function; see `evaluate`."""
    leaves = _tree(policy, reference, vocab_size, max_length, eos_ids)
    logprobs = torch.cat([part.logprobs for part in leaves])
    ref_logprobs = torch.cat([part.ref_logprobs for part in leaves])
    rewards = torch.tensor(
        [reward(tuple(ids), part.stopped) for part in leaves for ids in part.ids.tolist()], dtype=torch.float64
    )
    lengths = torch.cat([torch.full((len(part.ids),), part.ids.shape[1], dtype=torch.float64) for part in leaves])
    cut = torch.cat([torch.full((len(part.ids),), float(not part.stopped), dtype=torch.float64) for part in leaves])
    weights = logprobs.exp()
    expected = (weights * rewards).sum().item()
    kl = (weights * (logprobs - ref_logprobs)).sum().item()
    # A sum over all completions, not the difference of two objectives: it keeps its precision near 0.
    best = ref_logprobs + rewards / beta
    gap = beta * (weights * (logprobs - best + torch.logsumexp(best, 0))).sum().item()
    return Evaluation(
        expected_reward=expected,
        kl=kl,
        objective=expected - beta * kl,
        gap=gap,
        mean_length=(weights * lengths).sum().item(),
        truncated=(weights * cut).sum().item() if eos_ids else 0.0,
    )


def average(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Return the mean over prompts; standard errors are of independent estimates."""
    count = len(evaluations)

    def mean(name: str) -> float:
        return math.fsum(getattr(evaluation, name) for evaluation in evaluations) / count

    def pooled(name: str) -> float:
        return math.sqrt(math.fsum(getattr(evaluation, name) ** 2 for evaluation in evaluations)) / count

    names = list(Evaluation.__dataclass_fields__)
    return Evaluation(**{name: pooled(name) if name.endswith("_se") else mean(name) for name in names})


def _tree(policy: Policy, reference: Policy, vocab_size: int, max_length: int, eos_ids: Sequence[int]) -> list[_Leaves]:
    """Grow all completions level by level."""
    ending = torch.zeros(vocab_size, dtype=torch.bool)
    ending[list(eos_ids)] = True
    going = int((~ending).sum())
    if going**max_length > LARGEST_TREE:
        raise ValueError(f"{going}^{max_length} completions are too many to enumerate; see lengths.py")
    prefixes = torch.zeros(1, 0, dtype=torch.long)
    logprobs, ref_logprobs = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    leaves = []
    symbols = torch.arange(vocab_size)
    for _ in range(max_length):
        grown = torch.cat([prefixes.repeat_interleave(vocab_size, 0), symbols.repeat(len(prefixes))[:, None]], dim=1)
        logprobs = (logprobs[:, None] + policy(prefixes)).flatten()
        ref_logprobs = (ref_logprobs[:, None] + reference(prefixes)).flatten()
        ended = ending[grown[:, -1]]
        if ended.any():
            leaves.append(_Leaves(grown[ended], True, logprobs[ended], ref_logprobs[ended]))
        prefixes, logprobs, ref_logprobs = grown[~ended], logprobs[~ended], ref_logprobs[~ended]
    return [*leaves, _Leaves(prefixes, False, logprobs, ref_logprobs)]
