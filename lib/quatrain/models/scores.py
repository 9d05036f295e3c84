"""Scores of whole sequences by a model with a one-label head."""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from quatrain.models.sequences import PaddedBatch, by_token_budget, hidden_states, pad_right, score_head


def batch_scores(model: PreTrainedModel, batch: PaddedBatch) -> torch.Tensor:
    """Return the score of each row, [B] float32, differentiable: the head at the last real token by length."""
    hidden_BTD = hidden_states(model, batch)
    rows_B = torch.arange(hidden_BTD.shape[0], device=hidden_BTD.device)
    scores_B1: torch.Tensor = score_head(model)(hidden_BTD[rows_B, batch.lengths_B - 1])
    return scores_B1[:, 0].float()


@torch.no_grad()
def last_token_scores(model: PreTrainedModel, rows: Sequence[np.ndarray], token_budget: int) -> np.ndarray:
    """Return the float32 score of each row (one id or more); a microbatch has at most `token_budget` padded tokens."""
    scores = np.empty(len(rows), dtype=np.float32)
    for group in by_token_budget([len(row) for row in rows], token_budget):
        batch = pad_right([rows[index] for index in group], device=model.device)
        scores[group] = batch_scores(model, batch).cpu().numpy()
    return scores
