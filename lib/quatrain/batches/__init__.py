"""Sealed batches and per-token results as Parquet: what a PPO step reads and writes; pandas opens them too."""

from quatrain.batches.sealed import BatchRow, read_batch, write_batch
from quatrain.batches.tokens import TokenRow, read_tokens, write_tokens

__all__ = ["BatchRow", "TokenRow", "read_batch", "read_tokens", "write_batch", "write_tokens"]
