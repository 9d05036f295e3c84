"""The value model of PPO: a backbone of its own and a scalar head with bias, both trained."""

from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from quatrain.models.loading import load_causal_lm, load_sequence_classifier
from quatrain.models.sequences import score_head


class ValueModel(torch.nn.Module):
    """V of every state from the hidden state before the token. Head in float32 whatever the backbone's dtype."""

    def __init__(self, backbone: PreTrainedModel, weight_1D: Tensor, bias: float) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = torch.nn.Linear(weight_1D.shape[1], 1, bias=True, device=weight_1D.device, dtype=torch.float32)
        with torch.no_grad():
            self.head.weight.copy_(weight_1D)
            self.head.bias.fill_(bias)

    def values(self, hidden_ND: Tensor) -> Tensor:
        """Values [N] float32 of hidden states."""
        values_N1: Tensor = self.head(hidden_ND.float())
        return values_N1[:, 0]


def value_from_reward_model(folder: Path, scale: float, offset: float, dtype: str, device: torch.device) -> ValueModel:
    """Starts at the reward model's score as PPO uses it, (score - offset) * scale, read at every token."""
    model = load_sequence_classifier(folder, dtype=dtype, device=device)
    head = score_head(model)
    return ValueModel(cast(PreTrainedModel, model.base_model), head.weight.detach().float() * scale, -offset * scale)


def value_from_policy(folder: Path, dtype: str, device: torch.device) -> ValueModel:
    """Starts at the policy's backbone with a zero head: V = 0 everywhere."""
    backbone = cast(PreTrainedModel, load_causal_lm(folder, dtype=dtype, device=device).base_model)
    width = backbone.config.get_text_config().hidden_size
    return ValueModel(backbone, torch.zeros((1, width), device=device), 0.0)
