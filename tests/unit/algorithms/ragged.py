"""Random masked batches for tests, and their sequences without padding. Everything is float64."""

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor


@dataclass(frozen=True)
class Ragged:
    """A batch of rows of unequal length; what stands behind a row's end is NaN."""

    lengths: list[int]
    seed: int

    @property
    def mask(self) -> Tensor:
        width = max(self.lengths) + 1
        return torch.arange(width).unsqueeze(0) < torch.tensor(self.lengths).unsqueeze(1)

    def draw(self, name: int, scale: float = 1.0) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1000 + name)
        values = scale * torch.randn(self.mask.shape, generator=generator, dtype=torch.float64)
        return torch.where(self.mask, values, torch.nan)

    def rows(self, x: Tensor) -> list[list[float]]:
        return [row[:length] for row, length in zip(x.tolist(), self.lengths, strict=True)]


ragged_batches = st.builds(Ragged, st.lists(st.integers(1, 7), min_size=1, max_size=6), st.integers(0, 10**6))
