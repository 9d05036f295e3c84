"""All that is V in PPO: the value model, its optimizer, values, loss, updates and metrics."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from quatrain.algorithms.losses import value_loss_sum
from quatrain.algorithms.metrics import Metrics, UpdateSums, explained_variance
from quatrain.learner.backends import Check, Inputs
from quatrain.learner.backends.optimizer import AdamSettings, ModelOptimizer
from quatrain.learner.backends.ppo.step import Minibatch, Signals, StepSettings, UpdateResult, run_update
from quatrain.learner.backends.ranks import Ranks
from quatrain.learner.backends.state import Part
from quatrain.learner.backends.tokens import Microbatch, TokenRows
from quatrain.learner.requests import OpenRequest
from quatrain.models.loading import load_causal_lm, load_sequence_classifier
from quatrain.models.sequences import score_head


class Critic:
    """The value model in training."""

    def __init__(
        self, request: OpenRequest, inputs: Inputs, device: torch.device, adam: AdamSettings, ranks: Ranks
    ) -> None:
        self._model = _value_model(request, inputs, device)
        self._optimizer = ModelOptimizer("value", self._model, adam, ranks)

    @property
    def parts(self) -> Mapping[str, Part]:
        """What a checkpoint holds of the critic."""
        return {"value": Part(self._model, self._optimizer)}

    @torch.no_grad()
    def values(self, tokens: TokenRows, micros: Sequence[Microbatch], check: Check) -> Tensor:
        """Return the value before each completion token, [N], and 0 for the rows of other ranks."""
        values_N = torch.zeros(sum(tokens.lengths), device=tokens.device)
        for micro in micros:
            check()
            values_N[micro.token_M] = self._model.values(micro.hidden(self._model.backbone))
        return values_N

    def train_epoch(
        self,
        batches: Sequence[Minibatch],
        signals: Signals,
        settings: StepSettings,
        result: UpdateResult,
        check: Check,
    ) -> None:
        """Update the value model on each minibatch."""
        loss_of = partial(self._loss, signals, settings.spec.clip.value)
        for batch in batches:
            base_lr = settings.spec.optimizer.value_lr
            run_update(self._optimizer, base_lr, batch, loss_of, settings, result, check)

    def metrics(self, tokens: TokenRows, signals: Signals, settings: StepSettings, result: UpdateResult) -> Metrics:
        """Return the metrics of the critic, except those of its loss (`training_metrics`)."""
        return {
            "value/explained_variance": explained_variance(
                tokens.padded(signals.values_N), tokens.padded(signals.returns_N), tokens.mask_BT
            ),
            "optim/value_lr": settings.lr(settings.spec.optimizer.value_lr),
            "optim/value_grad_norm": result.norm.mean,
        }

    def _loss(self, signals: Signals, clip: float | None, micro: Microbatch) -> tuple[Tensor, UpdateSums]:
        new_M = self._model.values(micro.hidden(self._model.backbone))
        mask_M = torch.ones_like(new_M, dtype=torch.bool)
        loss, sums = value_loss_sum(
            new_M, signals.values_N[micro.token_M], signals.returns_N[micro.token_M], mask_M, clip
        )
        return loss, UpdateSums(value=sums)


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
        """Return the values of hidden states, [N] float32."""
        values_N1: Tensor = self.head(hidden_ND.float())
        return values_N1[:, 0]


def _value_model(request: OpenRequest, inputs: Inputs, device: torch.device) -> ValueModel:
    if inputs.value_model is None:
        return _from_policy(inputs.model, request.dtype, device)
    return _from_reward_model(inputs.value_model, request.value_scale, request.value_offset, request.dtype, device)


def _from_reward_model(folder: Path, scale: float, offset: float, dtype: str, device: torch.device) -> ValueModel:
    """Start at the reward model's score as PPO uses it, (score - offset) * scale, read at every token."""
    model = load_sequence_classifier(folder, dtype=dtype, device=device)
    head = score_head(model)
    return ValueModel(cast(PreTrainedModel, model.base_model), head.weight.detach().float() * scale, -offset * scale)


def _from_policy(folder: Path, dtype: str, device: torch.device) -> ValueModel:
    """Start at the policy's backbone with a zero head: V = 0 everywhere."""
    backbone = cast(PreTrainedModel, load_causal_lm(folder, dtype=dtype, device=device).base_model)
    width = backbone.config.get_text_config().hidden_size
    return ValueModel(backbone, torch.zeros((1, width), device=device), 0.0)
