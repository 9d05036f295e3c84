"""What each row may attend to while it is decoded: not the padding behind its prompt, and not beyond a layer's window.

A row of n prompt tokens has positions 0 .. n-1 in columns 0 .. n-1, and its new tokens, positions n and later, in the
columns after the longest prompt. A window counts positions, so it is applied to those and not to columns.

Shape suffixes: B rows in the batch now, C columns of the cache.
"""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

FULL, SLIDING = "full_attention", "sliding_attention"
Mask = torch.Tensor | dict[str, torch.Tensor | None] | None


@dataclass(frozen=True)
class Window:
    """The window of a model's layers in tokens. `everywhere`: no layer sees more."""

    width: int
    everywhere: bool


def sliding_window(model: PreTrainedModel) -> Window | None:
    """Return the model's window; None where every layer sees everything."""
    config: Any = model.config.get_text_config()
    layer_types = getattr(config, "layer_types", None)
    if layer_types is not None and SLIDING not in layer_types:
        return None
    if not getattr(config, "use_sliding_window", True):
        return None
    width = getattr(config, "sliding_window", None)
    return Window(int(width), layer_types is None or FULL not in layer_types) if width else None


class RowMasks:
    """The additive masks of the rows in a batch, [B, 1, 1, C]: minus infinity where a row must not look."""

    def __init__(
        self, lengths_B1: torch.Tensor, longest: int, capacity: int, window: Window | None, dtype: torch.dtype
    ) -> None:
        """Lay out rows with prompts of these lengths, the longest of them given, in a cache of `capacity` columns."""
        columns = torch.arange(capacity, device=lengths_B1.device)
        self._window = window if window is not None and capacity > window.width else None
        self._dtype = dtype
        self._padding_BC: torch.Tensor | None = None
        if not bool((lengths_B1 == longest).all()):
            self._padding_BC = self._hidden((columns >= lengths_B1) & (columns < longest))
        # The position of the token in each column.
        self._positions_BC = torch.where(columns < longest, columns, columns - longest + lengths_B1)

    def take(self, index: torch.Tensor) -> None:
        """Keep the rows of this index, in its order."""
        if self._padding_BC is not None:
            self._padding_BC = self._padding_BC[index]
        self._positions_BC = self._positions_BC[index]

    def at(self, position_B1: torch.Tensor, columns: int) -> Mask:
        """Return what tokens of these positions may look at in the first columns: one mask, or one by kind of layer."""
        padding = None if self._padding_BC is None else self._padding_BC[:, None, None, :columns]
        if self._window is None:
            return padding
        outside = self._positions_BC[:, :columns] <= position_B1 - self._window.width
        windowed = self._hidden(outside)[:, None, None, :]
        if padding is not None:
            windowed = torch.minimum(windowed, padding)
        return windowed if self._window.everywhere else {FULL: padding, SLIDING: windowed}

    def _hidden(self, where_BC: torch.Tensor) -> torch.Tensor:
        mask_BC = torch.zeros(where_BC.shape, dtype=self._dtype, device=where_BC.device)
        return mask_BC.masked_fill_(where_BC, float("-inf"))
