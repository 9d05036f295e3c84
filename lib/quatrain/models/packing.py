"""Rows of unequal length read one after the other as a single row, so that padding costs nothing.

Linear layers, norms and embeddings see the real tokens only; attention is cut back into the rows, those of equal length
together. On the CPU that saves the share of padding in a microbatch. On a GPU many small attention calls would cost
more than the padding, so models there read padded rows.
"""

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import torch
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

# transformers makes no mask for an attention that it does not know, which is what packed rows need.
_NAME = "quatrain_packed"
_plain_attention: Any = sdpa_attention_forward
_known: "weakref.WeakKeyDictionary[PreTrainedModel, bool]" = weakref.WeakKeyDictionary()


def can_pack(model: PreTrainedModel) -> bool:
    """Return whether the model computes the same from packed rows as from padded ones; tried once for each model."""
    if model not in _known:
        _known[model] = _is_eligible(model) and _gives_the_same(model)
    return _known[model]


def packed_hidden_states(model: PreTrainedModel, ids_N: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """Return the last hidden states [N, D] of rows of these lengths, which follow each other in `ids_N`."""
    positions_N = torch.cat([torch.arange(length, device=ids_N.device) for length in lengths])
    with _attention(model, _NAME):
        output = model.base_model(
            input_ids=ids_N[None], position_ids=positions_N[None], use_cache=False, packed_lengths=tuple(lengths)
        )
    hidden_ND: torch.Tensor = output.last_hidden_state[0]
    return hidden_ND


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    packed_lengths: Sequence[int],
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Compute causal attention inside each row. Inputs [1, heads, N, width], output [1, N, heads, width]."""
    runs = [(length, len(list(same))) for length, same in groupby(packed_lengths)]
    sizes = [length * count for length, count in runs]
    queries, keys, values = (torch.split(states, sizes, dim=2) for states in (query, key, value))
    parts = []
    for (length, count), *states in zip(runs, queries, keys, values, strict=True):
        rows = [state[0].reshape(state.shape[1], count, length, -1).transpose(0, 1) for state in states]
        output, _ = _plain_attention(module, *rows, None, **kwargs)
        parts.append(output.flatten(0, 1))
    return torch.cat(parts)[None], None


AttentionInterface.register(_NAME, packed_attention)


@contextmanager
def _attention(model: PreTrainedModel, name: str) -> Iterator[None]:
    """Replace the model's attention function inside the block; one thread uses a model at a time."""
    config: Any = model.config
    before = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before


def _is_eligible(model: PreTrainedModel) -> bool:
    """Return False for a model whose layers look at a window of the past: that needs a mask, which packed rows lack."""
    config: Any = model.config.get_text_config()
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    full = set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
    return model.device.type == "cpu" and model.config._attn_implementation == "sdpa" and full and window is None


@torch.no_grad()
def _gives_the_same(model: PreTrainedModel) -> bool:
    """Return whether a packed and a padded pass agree: an architecture may keep other state, or lose the lengths."""
    ids_BT = torch.tensor([[0, 1, 0], [1, 0, 0]], device=model.device)
    padded = model.base_model(input_ids=ids_BT, use_cache=False).last_hidden_state
    wanted = torch.cat([padded[0], padded[1, :2]])
    try:
        found = packed_hidden_states(model, torch.tensor([0, 1, 0, 1, 0], device=model.device), [3, 2])
    except (TypeError, ValueError, RuntimeError, AttributeError):
        return False
    tolerance = 1e-4 if model.dtype == torch.float32 else 5e-2
    return torch.allclose(found.float(), wanted.float(), rtol=tolerance, atol=tolerance, equal_nan=True)
