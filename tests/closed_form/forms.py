"""Closed forms: what the best policy of each task is, against a reference that is uniform over V symbols.

The best policy of max E r - beta KL(policy || reference) is reference * exp(r / beta) / Z, its objective beta log Z,
and any policy's distance from that objective is beta KL(policy || best).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

LengthReward = Callable[[int, bool], float]  # length (end of sequence counted), stopped by itself -> reward


@dataclass(frozen=True)
class Optimum:
    """Expected reward, KL in nats per sequence, and objective of the best policy."""

    expected_reward: float
    kl: float
    objective: float


def count_symbol(vocab_size: int, length: int, beta: float) -> Optimum:
    """Best policy of task A: fixed length, reward 1 for each place at which one given symbol stands.

    Places are independent: p = e^(1/beta) / (e^(1/beta) + V - 1) at each.
    """
    others = vocab_size - 1
    p = math.exp(1 / beta) / (math.exp(1 / beta) + others)
    kl = length * (math.log(vocab_size) + p * math.log(p) + (1 - p) * math.log((1 - p) / others))
    return Optimum(length * p, kl, length * p - beta * kl)


def non_decreasing(vocab_size: int, length: int, beta: float) -> Optimum:
    """Best policy of task B: fixed length, reward 1 if the symbols never fall.

    C(V + L - 1, L) of the V^L sequences are sorted; the odds of the reward are those of the reference times e^(1/beta).
    """
    p0 = math.comb(vocab_size + length - 1, length) / vocab_size**length
    p = 1 / (1 + math.exp(-(math.log(p0 / (1 - p0)) + 1 / beta)))
    kl = p * math.log(p / p0) + (1 - p) * math.log((1 - p) / (1 - p0))
    return Optimum(p, kl, p - beta * kl)


@dataclass(frozen=True)
class LengthOptimum:
    """Best policy when the reward depends on the length only: a hazard for each state, and what follows from it."""

    expected_reward: float
    kl: float
    objective: float
    mean_length: float
    truncated: float
    hazards: tuple[float, ...]  # probability of ending after t symbols, t = 0 .. max_length - 1


def end_early(vocab_size: int, max_length: int, cost: float, penalty: float, beta: float) -> LengthOptimum:
    """Best policy of task C: each token costs, and `penalty` is subtracted when the sequence is cut at `max_length`."""
    return length_optimum(vocab_size, max_length, length_cost(cost, penalty), beta)


def length_cost(cost: float, penalty: float) -> LengthReward:
    """Reward of task C."""
    return lambda length, stopped: -cost * length - (0.0 if stopped else penalty)


def length_optimum(vocab_size: int, max_length: int, reward: LengthReward, beta: float) -> LengthOptimum:
    """Best policy for any reward of the length, one of the V symbols ending the sequence, by backward recursion.

    U_t, the reference's mean of e^(r/beta) over all continuations of t symbols, is U_L = e^(r(L, cut)/beta) and
    U_t = q e^(r(t+1, stopped)/beta) + (1 - q) U_(t+1) with q = 1/V. The best hazard is the first summand's share.
    """
    q = 1 / vocab_size
    hazards: list[float] = []
    partition = math.exp(reward(max_length, False) / beta)
    for t in reversed(range(max_length)):
        ending = q * math.exp(reward(t + 1, True) / beta)
        partition = ending + (1 - q) * partition
        hazards.append(ending / partition)
    hazards.reverse()
    return _follow(hazards, q, reward, beta * math.log(partition))


def _follow(hazards: Sequence[float], q: float, reward: LengthReward, objective: float) -> LengthOptimum:
    alive, expected, kl, mean_length = 1.0, 0.0, 0.0, 0.0
    for t, hazard in enumerate(hazards):
        expected += alive * hazard * reward(t + 1, True)
        mean_length += alive * hazard * (t + 1)
        kl += alive * (hazard * math.log(hazard / q) + (1 - hazard) * math.log((1 - hazard) / (1 - q)))
        alive *= 1 - hazard
    expected += alive * reward(len(hazards), False)
    mean_length += alive * len(hazards)
    return LengthOptimum(expected, kl, objective, mean_length, alive, tuple(hazards))
