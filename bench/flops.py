"""Floating-point operations that a PPO step needs on its real tokens; padding and recomputation are not counted.

For a row of n real tokens (prompt and completion), of which c are completion tokens:

    forward  = 2 * N * n + 2 * H * c + 2 * L * d * n^2
    training = 3 * forward                        (the backward pass costs twice the forward pass)

N: weights of the backbone's linear layers, without embedding; H: weights of the head, which runs at the positions that
predict a completion token; L layers of width d. The last term is attention: two products (scores, mixture), each of
2 * d * n^2 operations in full and of half that under a causal mask. A step trains policy and value model for E epochs
each, after one forward pass of each: sum over rows of (1 + 3 E) * (forward of policy + forward of value model).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from bench.cases import HIDDEN, INTERMEDIATE, LAYERS


@dataclass(frozen=True)
class Row:
    """The real tokens of one sequence."""

    prompt: int
    completion: int


BACKBONE_WEIGHTS = LAYERS * (4 * HIDDEN * HIDDEN + 3 * HIDDEN * INTERMEDIATE)


def forward_flops(row: Row, head_weights: int) -> int:
    """Return the operations of one model over one row."""
    tokens = row.prompt + row.completion
    linear = 2 * BACKBONE_WEIGHTS * tokens + 2 * head_weights * row.completion
    return linear + 2 * LAYERS * HIDDEN * tokens * tokens


def step_flops(rows: Iterable[Row], vocabulary: int, epochs: int) -> int:
    """Return the operations of the learner in one PPO step."""
    forward = sum(forward_flops(row, HIDDEN * vocabulary) + forward_flops(row, HIDDEN) for row in rows)
    return (1 + 3 * epochs) * forward
