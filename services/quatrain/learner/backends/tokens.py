"""Completion tokens of many rows one after the other, and microbatches that point into them.

Shape suffixes: B rows, T positions, N completion tokens of the rows (row by row), M those of one microbatch, D hidden
width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from quatrain.batches.sealed import IntArray
from quatrain.learner.backends.ranks import Ranks
from quatrain.models.sequences import PaddedBatch, by_token_budget, completion_positions, hidden_states, pad_completions


@dataclass(frozen=True, eq=False)
class Microbatch:
    """Some rows, padded on the right. `token_M` is the index of its tokens among all completion tokens of the step."""

    batch: PaddedBatch
    token_M: Tensor
    row_M: Tensor
    position_M: Tensor

    @property
    def targets_M(self) -> Tensor:
        """Return the completion tokens."""
        return self.batch.input_ids_BT[self.row_M, self.position_M + 1]

    def hidden(self, model: PreTrainedModel) -> Tensor:
        """Return the hidden states that predict the completion tokens, [M, D]; differentiable."""
        return hidden_states(model, self.batch)[self.row_M, self.position_M]


@dataclass(frozen=True, eq=False)
class TokenRows:
    """Rows of prompt and completion; every completion has at least one token and a token before it."""

    prompts: Sequence[IntArray]
    completions: Sequence[IntArray]
    device: torch.device

    @cached_property
    def lengths(self) -> list[int]:
        """Return the completion tokens of each row."""
        return [len(completion) for completion in self.completions]

    @cached_property
    def mask_BT(self) -> Tensor:
        """Return True for real completion tokens; T is the longest completion."""
        lengths_B = torch.tensor(self.lengths, dtype=torch.long, device=self.device)
        width = max(self.lengths, default=1)
        return torch.arange(width, device=self.device)[None, :] < lengths_B[:, None]

    def padded(self, x_N: Tensor) -> Tensor:
        """Return [N] as [B, T], 0 where masked."""
        x_BT = x_N.new_zeros(self.mask_BT.shape)
        x_BT[self.mask_BT] = x_N
        return x_BT

    def flat(self, x_BT: Tensor) -> Tensor:
        """Return [B, T] as [N]."""
        return x_BT[self.mask_BT]

    def join(self, rows: Sequence[np.ndarray]) -> Tensor:
        """Return one float array a row as [N] float32."""
        joined = np.concatenate(rows) if len(rows) else np.empty(0, np.float32)
        return torch.from_numpy(joined.astype(np.float32)).to(self.device)

    def split(self, x_N: Tensor) -> list[np.ndarray]:
        """Return [N] as one float32 array a row."""
        values = x_N.detach().float().cpu().numpy()
        return np.split(values, np.cumsum(self.lengths)[:-1]) if self.lengths else []

    def microbatches(self, rows: Sequence[int], budget: int) -> list[Microbatch]:
        """Return microbatches of at most `budget` padded tokens; depends on the set of rows, not on their order."""
        chosen = sorted(rows)
        totals = [len(self.prompts[row]) + self.lengths[row] for row in chosen]
        return [self._microbatch([chosen[i] for i in group]) for group in by_token_budget(totals, budget)]

    def shard(self, rows: Sequence[int], ranks: Ranks) -> list[int]:
        """Return those of the rows that are this rank's; depends on the set of rows and not on their order."""
        chosen = sorted(rows)
        return [chosen[index] for index in ranks.shard([len(self.prompts[row]) + self.lengths[row] for row in chosen])]

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *np.cumsum(self.lengths).tolist()]

    def _microbatch(self, rows: list[int]) -> Microbatch:
        batch = pad_completions(
            [self.prompts[row] for row in rows], [self.completions[row] for row in rows], device=self.device
        )
        token = np.concatenate([np.arange(self._starts[row], self._starts[row] + self.lengths[row]) for row in rows])
        row_M, position_M = completion_positions(batch)
        return Microbatch(batch, torch.from_numpy(token).to(self.device), row_M, position_M)
