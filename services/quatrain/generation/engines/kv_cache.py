"""A key-value cache of fixed capacity that transformers' models write into, and that rows can leave.

Every layer's storage is made once, [B, heads, capacity, width]; an update is a copy into the next columns and returns
views, so nothing grows by concatenation. A row leaves by moving the last row into its place, which costs one row.
"""

from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin


class PreallocatedLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One layer's keys and values: the first `rows` rows and the first `length` columns are in use."""

    is_sliding = False
    is_compileable = False

    def __init__(self, capacity: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.capacity = capacity
        self.length = 0
        self.rows = 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Make the storage for the shapes of the first update."""
        rows, heads, _, width = key_states.shape
        self.keys = key_states.new_empty(rows, heads, self.capacity, width)
        self.values = value_states.new_empty(rows, heads, self.capacity, value_states.shape[-1])
        self.rows = rows
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append columns [rows, heads, new, width] and return all columns in use."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        start, end = self.length, self.length + key_states.shape[2]
        self.keys[: self.rows, :, start:end] = key_states
        self.values[: self.rows, :, start:end] = value_states
        self.length = end
        return self.keys[: self.rows, :, :end], self.values[: self.rows, :, :end]

    def move_rows(self, sources: torch.Tensor, targets: torch.Tensor, rows: int) -> None:
        """Copy rows `sources` over rows `targets`, and use only the first `rows` rows from then on."""
        assert self.keys is not None
        assert self.values is not None
        if len(sources):
            self.keys[targets, :, : self.length] = self.keys[sources, :, : self.length]
            self.values[targets, :, : self.length] = self.values[sources, :, : self.length]
        self.rows = rows

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many columns a query of this length sees, and the first of them."""
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        """Return the number of columns in use."""
        return self.length

    def get_max_length(self) -> int:
        """Return the capacity in columns."""
        return self.capacity


class PreallocatedCache(Cache):
    """The cache of all layers for one chunk."""

    def __init__(self, layers: int, capacity: int) -> None:
        self._own_layers = [PreallocatedLayer(capacity) for _ in range(layers)]
        super().__init__(layers=list(self._own_layers))

    @property
    def length(self) -> int:
        """Return the number of columns in use."""
        return self._own_layers[0].length

    def move_rows(self, sources: torch.Tensor, targets: torch.Tensor, rows: int) -> None:
        """Move the rows of every layer, as `PreallocatedLayer.move_rows` does."""
        for layer in self._own_layers:
            layer.move_rows(sources, targets, rows)
