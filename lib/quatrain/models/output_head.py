"""The output head of a causal model: from hidden states to the logits that every service samples from and scores with.

Sampler, learner and reference go through `OutputHead.logits`, so that one distribution is meant everywhere: logits
scaled and capped as the architecture wants, and never an id that the tokenizer does not have.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from quatrain.errors import InvalidData

_ABSENT = "absent_token_ids"
# Far below every logit. Not minus infinity: its product with a probability of 0 would make the entropy NaN.
_NEVER = -1e30


@dataclass(frozen=True, eq=False)
class OutputHead:
    """A linear layer and what follows it: logits = cap * tanh(scale * layer(hidden) / cap) in float32.

    absent_V: True for rows that pad the embedding, whose ids the tokenizer does not have; None without such rows.
    """

    layer: torch.nn.Module
    scale: float = 1.0
    soft_cap: float | None = None
    absent_V: torch.Tensor | None = None

    @property
    def weight(self) -> torch.Tensor:
        """Return the layer's weight, [V, D]."""
        return self.layer.get_parameter("weight")

    @property
    def size(self) -> int:
        """Return the number of logits."""
        return int(self.weight.shape[0])

    def logits(self, hidden_ND: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
        """Return the logits [N, V] in float32, divided by the temperature."""
        logits_NV: torch.Tensor = self.layer(hidden_ND).float()
        if self.scale != 1.0:
            logits_NV = logits_NV * self.scale
        if self.soft_cap is not None:
            logits_NV = torch.tanh(logits_NV / self.soft_cap) * self.soft_cap
        if temperature != 1.0:
            logits_NV = logits_NV / temperature
        return logits_NV if self.absent_V is None else logits_NV.masked_fill(self.absent_V, _NEVER)


def output_head(model: PreTrainedModel) -> OutputHead:
    """Return the head that turns hidden states into logits. Raises InvalidData if the model has none."""
    untyped: Any = model
    layer = untyped.get_output_embeddings()
    if not isinstance(layer, torch.nn.Module):
        raise InvalidData(f"{type(model).__name__} has no output head, so it is not a causal language model.")
    config: Any = model.config.get_text_config()
    multiplied, divided = getattr(config, "logit_scale", None), getattr(config, "logits_scaling", None)
    return OutputHead(
        layer,
        scale=(_number(multiplied) or 1.0) / (_number(divided) or 1.0),
        soft_cap=_number(getattr(config, "final_logit_softcapping", None)),
        absent_V=getattr(model, _ABSENT, None),
    )


def mark_absent_ids(model: PreTrainedModel, known: Iterable[int]) -> None:
    """Keep the ids of the embedding that are not in `known` from ever being sampled. No weight is changed."""
    absent_V = torch.ones(output_head(model).size, dtype=torch.bool)
    absent_V[[token for token in known if token < len(absent_V)]] = False
    if bool(absent_V.any()):
        # A buffer follows the model to its device; one that is not persistent is in no checkpoint.
        model.register_buffer(_ABSENT, absent_V.to(model.device), persistent=False)


def _number(value: object) -> float | None:
    """Return a factor of the config; None where there is none (0 and false switch some of them off)."""
    return float(value) if isinstance(value, int | float) and value else None
