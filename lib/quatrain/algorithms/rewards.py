"""The reward of each token. Shapes: B sequences, T completion positions."""

import torch
from torch import Tensor


def token_rewards(score_B: Tensor, kl_reward_BT: Tensor, lengths_B: Tensor) -> Tensor:
    """Return r_t = kl_reward_t + 1[t = T] * score, [B, T]: the score lands on the last real token, never after it.

    Args:
        score_B: Score of each sequence.
        kl_reward_BT: Output of `kl_reward`, or zeros when the KL penalty is in the loss.
        lengths_B: Real tokens of each completion, 1 or more, the end of sequence counted.

    Raises:
        ValueError: A completion is empty, so there is no token that could carry its score, or is longer than T.
    """
    width = kl_reward_BT.shape[1]
    lengths_B = lengths_B.long()
    if lengths_B.numel() and (int(lengths_B.min()) < 1 or int(lengths_B.max()) > width):
        raise ValueError(f"completion lengths must lie in 1..{width}, got {lengths_B.tolist()}")
    last_BT = torch.nn.functional.one_hot(lengths_B - 1, num_classes=width).bool()
    return torch.where(last_BT, kl_reward_BT + score_B.to(kl_reward_BT.dtype).unsqueeze(1), kl_reward_BT)
