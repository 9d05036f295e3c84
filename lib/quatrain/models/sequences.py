"""Right-padded batches of rows of unequal length, and the hidden states of a causal model over them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from quatrain.errors import InvalidData
from quatrain.models.packing import can_pack, packed_hidden_states


@dataclass(frozen=True)
class PaddedBatch:
    """Rows padded on the right with id 0; what lies beyond a row's length has no meaning.

    `prompt_lengths_B` is zero for rows that have no prompt and completion.
    """

    input_ids_BT: torch.Tensor  # int64
    lengths_B: torch.Tensor  # int64
    prompt_lengths_B: torch.Tensor  # int64


def pad_right(
    rows: Sequence[np.ndarray], *, prompt_lengths: Sequence[int] | None = None, device: torch.device | str = "cpu"
) -> PaddedBatch:
    """Return one batch of the rows (token ids, at least one row, at least one token in a row)."""
    lengths = [len(row) for row in rows]
    input_ids = np.zeros((len(rows), max(lengths)), dtype=np.int64)
    for index, row in enumerate(rows):
        input_ids[index, : lengths[index]] = row
    return PaddedBatch(
        input_ids_BT=torch.from_numpy(input_ids).to(device),
        lengths_B=torch.tensor(lengths, device=device),
        prompt_lengths_B=torch.tensor(list(prompt_lengths or [0] * len(rows)), device=device),
    )


def pad_completions(
    prompts: Sequence[np.ndarray], completions: Sequence[np.ndarray], *, device: torch.device | str = "cpu"
) -> PaddedBatch:
    """Return one batch of rows prompt + completion."""
    rows = [np.concatenate([prompt, completion]) for prompt, completion in zip(prompts, completions, strict=True)]
    return pad_right(rows, prompt_lengths=[len(prompt) for prompt in prompts], device=device)


def by_token_budget(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Return groups of row indices such that rows x longest row <= budget, or one row where that alone is longer.

    Rows are taken from the longest to the shortest (ties by index), so that little is padded and the largest microbatch
    comes first, where a lack of memory shows at once. Equal arguments give equal groups. Raises ValueError for a budget
    below 1.
    """
    if budget < 1:
        raise ValueError(f"token budget must be 1 or more, not {budget}")
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    groups: list[list[int]] = []
    room = 0
    for index in order:
        if room < 1:
            groups.append([])
            room = max(1, budget // max(1, lengths[index]))
        groups[-1].append(index)
        room -= 1
    return groups


def score_head(model: PreTrainedModel) -> torch.nn.Linear:
    """Return the layer that turns a hidden state into a score. Raises InvalidData if there is none with one label."""
    head = getattr(model, "score", None)
    if not isinstance(head, torch.nn.Linear) or head.out_features != 1:
        raise InvalidData(f"{type(model).__name__} has no `score` layer with one label, which a reward model needs.")
    return head


def hidden_states(model: PreTrainedModel, batch: PaddedBatch) -> torch.Tensor:
    """Return the last hidden states [B, T, D] of the model's backbone; differentiable. Those of padding mean nothing.

    Rows of unequal length are packed where the model can be. Otherwise there is no attention mask: with right padding
    the causal mask alone keeps padding away from the real tokens, and attention stays on its fast causal path.
    """
    if int(batch.lengths_B.min()) < batch.input_ids_BT.shape[1] and can_pack(model):
        return _packed(model, batch)
    output = model.base_model(input_ids=batch.input_ids_BT, use_cache=False)
    hidden_BTD: torch.Tensor = output.last_hidden_state
    return hidden_BTD


def _packed(model: PreTrainedModel, batch: PaddedBatch) -> torch.Tensor:
    ids_BT = batch.input_ids_BT
    real_BT = torch.arange(ids_BT.shape[1], device=ids_BT.device) < batch.lengths_B[:, None]
    hidden_ND = packed_hidden_states(model, ids_BT[real_BT], batch.lengths_B.tolist())
    hidden_BTD = hidden_ND.new_zeros(*ids_BT.shape, hidden_ND.shape[-1])
    hidden_BTD[real_BT] = hidden_ND
    return hidden_BTD


def completion_positions(batch: PaddedBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the index (row_N, position_N) of the hidden states that predict the completion tokens, row by row.

    A row of n prompt tokens and T completion tokens is predicted at positions n-1 .. n-1+T-1.
    """
    positions_T = torch.arange(batch.input_ids_BT.shape[1], device=batch.input_ids_BT.device)
    first_B1 = (batch.prompt_lengths_B - 1)[:, None]
    end_B1 = (batch.lengths_B - 1)[:, None]
    row_N, position_N = torch.nonzero((positions_T >= first_B1) & (positions_T < end_B1), as_tuple=True)
    return row_N, position_N


def completion_targets(batch: PaddedBatch) -> torch.Tensor:
    """Return the completion tokens [N], in the order of `completion_positions`."""
    row_N, position_N = completion_positions(batch)
    return batch.input_ids_BT[row_N, position_N + 1]


def completion_hidden_states(model: PreTrainedModel, batch: PaddedBatch) -> torch.Tensor:
    """Return the hidden states [N, D] that predict the completion tokens, in that order; differentiable."""
    row_N, position_N = completion_positions(batch)
    return hidden_states(model, batch)[row_N, position_N]
