"""All that is V in PPO: the value model, its optimizer, values, loss, updates, metrics and part of the checkpoint.

Whether a job has a critic is for its advantage estimator to say (`quatrain.algorithms.advantages`).
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel
from typing_extensions import override

from quatrain.algorithms.advantages import estimator_named
from quatrain.algorithms.losses import value_loss_sum
from quatrain.algorithms.metrics import Metrics, UpdateSums, explained_variance
from quatrain.errors import InvalidInput
from quatrain.jobspec.sections import PpoSpec
from quatrain.learner.backends import Check, Inputs
from quatrain.learner.backends.optimizer import AdamSettings, ModelOptimizer
from quatrain.learner.backends.ppo.step import Minibatch, Signals, StepSettings, UpdateResult, run_update
from quatrain.learner.backends.ranks import Ranks
from quatrain.learner.backends.state import Part
from quatrain.learner.backends.tokens import Microbatch, TokenRows
from quatrain.learner.requests import OpenRequest
from quatrain.models.loading import load_causal_lm, load_sequence_classifier
from quatrain.models.sequences import score_head


class Critic(Protocol):
    """What a PPO step needs of V.

    A step asks for the values, then trains for some epochs, then reports::

        values_N = critic.values(tokens, micros, check)
        ...
        for epoch in range(epochs):
            critic.train_epoch(settings.minibatches(tokens, epoch), signals, settings, result, check)
        metrics |= critic.metrics(tokens, signals, settings, result)
    """

    @property
    def parts(self) -> Mapping[str, Part]:
        """Return what a checkpoint holds of the critic, by name."""
        ...

    def values(self, tokens: TokenRows, micros: Sequence[Microbatch], check: Check) -> Tensor | None:
        """Return the value before each completion token, [N], 0 for the rows of other ranks; None without values."""
        ...

    def train_epoch(
        self,
        batches: Sequence[Minibatch],
        signals: Signals,
        settings: StepSettings,
        result: UpdateResult,
        check: Check,
    ) -> None:
        """Update the value model on each minibatch and add to `result` what that did."""
        ...

    def metrics(self, tokens: TokenRows, signals: Signals, settings: StepSettings, result: UpdateResult) -> Metrics:
        """Return the metrics of the critic, except those of its loss (`training_metrics`)."""
        ...


def make_critic(
    request: OpenRequest, spec: PpoSpec, inputs: Inputs, device: torch.device, adam: AdamSettings, ranks: Ranks
) -> Critic:
    """Return the critic that the estimator of the job needs. Raises InvalidInput for settings that do not fit it."""
    if estimator_named(spec.advantage.estimator).needs_critic:
        return ValueCritic(request, inputs, device, adam, ranks)
    if spec.optimizer.value_warmup_steps:
        raise InvalidInput(
            f"ppo.optimizer.value_warmup_steps is {spec.optimizer.value_warmup_steps}, but the advantage estimator "
            f"{spec.advantage.estimator} has no value model that could learn in them; leave it out."
        )
    return NoCritic()


class ValueCritic(Critic):
    """A value model in training, with an optimizer of its own."""

    def __init__(
        self, request: OpenRequest, inputs: Inputs, device: torch.device, adam: AdamSettings, ranks: Ranks
    ) -> None:
        self._model = _value_model(request, inputs, device)
        self._optimizer = ModelOptimizer("value", self._model, adam, ranks)

    @property
    @override
    def parts(self) -> Mapping[str, Part]:
        return {"value": Part(self._model, self._optimizer)}

    @override
    @torch.no_grad()
    def values(self, tokens: TokenRows, micros: Sequence[Microbatch], check: Check) -> Tensor:
        values_N = torch.zeros(sum(tokens.lengths), device=tokens.device)
        for micro in micros:
            check()
            values_N[micro.token_M] = self._model.values(micro.hidden(self._model.backbone))
        return values_N

    @override
    def train_epoch(
        self,
        batches: Sequence[Minibatch],
        signals: Signals,
        settings: StepSettings,
        result: UpdateResult,
        check: Check,
    ) -> None:
        loss_of = partial(self._loss, *_targets(signals), settings.spec.clip.value)
        base_lr = settings.spec.optimizer.value_lr
        for batch in batches:
            run_update(self._optimizer, base_lr, batch, loss_of, settings, result, check)

    @override
    def metrics(self, tokens: TokenRows, signals: Signals, settings: StepSettings, result: UpdateResult) -> Metrics:
        values_N, returns_N = _targets(signals)
        return {
            "value/explained_variance": explained_variance(
                tokens.padded(values_N), tokens.padded(returns_N), tokens.mask_BT
            ),
            "optim/value_lr": settings.lr(settings.spec.optimizer.value_lr),
            "optim/value_grad_norm": result.norm.mean,
        }

    def _loss(
        self, values_N: Tensor, returns_N: Tensor, clip: float | None, micro: Microbatch
    ) -> tuple[Tensor, UpdateSums]:
        new_M = self._model.values(micro.hidden(self._model.backbone))
        mask_M = torch.ones_like(new_M, dtype=torch.bool)
        loss, sums = value_loss_sum(new_M, values_N[micro.token_M], returns_N[micro.token_M], mask_M, clip)
        return loss, UpdateSums(value=sums)


class NoCritic(Critic):
    """The critic of estimators that need none: nothing is loaded, trained or saved, and its metrics are None."""

    @property
    @override
    def parts(self) -> Mapping[str, Part]:
        return {}

    @override
    def values(self, tokens: TokenRows, micros: Sequence[Microbatch], check: Check) -> None:
        return None

    @override
    def train_epoch(
        self,
        batches: Sequence[Minibatch],
        signals: Signals,
        settings: StepSettings,
        result: UpdateResult,
        check: Check,
    ) -> None:
        pass

    @override
    def metrics(self, tokens: TokenRows, signals: Signals, settings: StepSettings, result: UpdateResult) -> Metrics:
        return {"value/explained_variance": None, "optim/value_lr": None, "optim/value_grad_norm": None}


def _targets(signals: Signals) -> tuple[Tensor, Tensor]:
    """Return old values and returns. Raises ValueError for an estimator that leaves its critic without returns."""
    if signals.values_N is None or signals.returns_N is None:
        raise ValueError("the advantage estimator needs a critic, but gives no returns that it could learn")
    return signals.values_N, signals.returns_N


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
