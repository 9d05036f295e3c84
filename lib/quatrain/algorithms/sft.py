"""The loss of supervised fine-tuning. Shapes: B rows, T completion positions."""

import torch
from torch import Tensor


def sft_loss_sum(logprobs_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Return -sum of the logprobs of real completion tokens, a scalar in nats.

    The caller divides by the completion tokens of the whole optimizer batch, over all microbatches and ranks.
    """
    return -torch.where(mask_BT, logprobs_BT, torch.zeros_like(logprobs_BT)).sum()
