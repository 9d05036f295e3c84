"""The PPO trainer: policy and value model, their optimizers, and the state that lives from step to step."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from quatrain.algorithms.kl import adaptive_kl
from quatrain.algorithms.lengths import LengthBaseline
from quatrain.algorithms.metrics import Metrics, StepBatch, batch_metrics, explained_variance, training_metrics
from quatrain.algorithms.schedules import lr_at
from quatrain.batches import TokenRow, write_tokens
from quatrain.errors import InvalidInput
from quatrain.jobspec.sections import PpoSpec
from quatrain.learner.backends import Check, Inputs, StepResult
from quatrain.learner.backends.checks import finite_metrics
from quatrain.learner.backends.lanes import TwoLanes
from quatrain.learner.backends.optimizer import AdamSettings, ModelOptimizer
from quatrain.learner.backends.ppo.critic import ValueModel, value_from_policy, value_from_reward_model
from quatrain.learner.backends.ppo.rows import Bounds, PpoRows, read_rows
from quatrain.learner.backends.ppo.signals import SignalPlan, Signals, compute_signals
from quatrain.learner.backends.ppo.updates import Policy, UpdatePlan, UpdateResult, Value, run_updates
from quatrain.learner.backends.ranks import ALONE, Ranks
from quatrain.learner.backends.state import Part, fingerprint, read_state, write_state
from quatrain.learner.backends.tokens import TokenRows
from quatrain.learner.requests import OpenRequest
from quatrain.models.loading import load_causal_lm, vocabulary_and_positions
from quatrain.models.logprobs import completion_logprobs


class PpoTrainer:
    """Trains version first_policy_version + step - 1 into the next one, from sealed batches alone."""

    def __init__(
        self, request: OpenRequest, settings: PpoSpec, inputs: Inputs, device: torch.device, ranks: Ranks = ALONE
    ) -> None:
        self._request = request
        self._settings = settings
        self._device = device
        self._ranks = ranks
        self._policy = load_causal_lm(inputs.model, dtype=request.dtype, device=device)
        self._value = _value_model(request, inputs, device)
        self._bounds = Bounds(*vocabulary_and_positions(self._policy))
        adam = _adam_settings(settings)
        self._policy_optimizer = ModelOptimizer("policy", self._policy, adam, ranks)
        self._value_optimizer = ModelOptimizer("value", self._value, adam, ranks)
        self._kl_coef = settings.kl.coef
        self._baseline = LengthBaseline()
        self._skipped_total = 0
        self._step = 0

    @property
    def step(self) -> int:
        """Steps that are done."""
        return self._step

    def train(self, step: int, batch: bytes | None, check: Check) -> StepResult:
        """Trains one step on a sealed batch."""
        if batch is None:
            raise InvalidInput(f"PPO step {step} needs a sealed batch.")
        started = time.perf_counter()
        rows = read_rows(batch, self._request.first_policy_version + step - 1, self._bounds)
        tokens = TokenRows(
            [row.prompt_ids for row in rows.rollouts], [row.completion_ids for row in rows.rollouts], self._device
        )
        settings, temperature = self._settings, self._request.temperature
        lanes = TwoLanes(self._device, self._ranks)
        beta_in_loss = self._kl_coef if settings.kl.placement == "loss" else 0.0
        update_plan = UpdatePlan(settings, temperature, beta_in_loss, self._request.seed, step, self._ranks)
        first_epoch = [micro for batch in update_plan.minibatches(tokens, 0) for micro in batch.micros]
        exact = self._request.exact_logprobs
        signal_plan = SignalPlan(settings, temperature, self._kl_coef, exact, first_epoch, self._ranks)
        signals = compute_signals(self._policy, self._value, tokens, rows, signal_plan, lanes, check)
        policy = Policy(self._policy_optimizer, self._lr(self._settings.optimizer.policy_lr, step), self._policy)
        value = Value(self._value_optimizer, self._lr(self._settings.optimizer.value_lr, step), self._value)
        updated = run_updates(policy, value, tokens, signals, update_plan, lanes, check)
        metrics = self._metrics(rows, tokens, signals, updated)
        metrics |= training_metrics(updated.sums, updated.first, update_plan.kl_coef, self._settings.entropy_coef)
        metrics |= _optimizer_metrics(policy, value, updated)
        seconds = time.perf_counter() - started
        metrics["throughput/train_tokens_per_s"] = _real_tokens(tokens) / seconds
        self._control_kl(metrics["kl/ref_seq"], len(rows.rollouts))
        self._skipped_total += updated.skipped
        self._step = step
        return StepResult(finite_metrics(metrics), write_tokens(_token_rows(rows, tokens, signals)))

    def logprobs(
        self,
        prompts: Sequence[npt.NDArray[np.int32]],
        completions: Sequence[npt.NDArray[np.int32]],
        temperature: float,
    ) -> list[npt.NDArray[np.float32]]:
        """Logprobs of the completions under the policy in training."""
        budget = self._settings.optimizer.microbatch_tokens
        return completion_logprobs(self._policy, prompts, completions, temperature=temperature, token_budget=budget)

    def write_model(self, folder: Path) -> None:
        """Writes the policy."""
        self._policy.save_pretrained(folder)

    def save(self, folder: Path) -> None:
        """Writes models, optimizers, KL coefficient, length baseline, counters and the random state."""
        baseline = self._baseline
        values = {
            **self._identity(),
            "step": self._step,
            "policy_version": self._request.first_policy_version + self._step,
            "kl_coef": self._kl_coef,
            "length_baseline": [baseline.steps, list(baseline.lengths), list(baseline.scores)],
            "skipped_total": self._skipped_total,
        }
        write_state(folder, self._parts(), values)

    def load(self, folder: Path) -> None:
        """Takes over what `save` wrote."""
        values = read_state(folder, self._parts(), self._identity())
        self._skipped_total = values["skipped_total"]
        if self._settings.kl.controller == "adaptive":  # A fixed one may have been changed by a fork.
            self._kl_coef = values["kl_coef"]
        steps, lengths, scores = values["length_baseline"]
        self._baseline = LengthBaseline(steps, tuple(lengths), tuple(scores))
        self._step = values["step"]

    def fingerprint(self) -> int:
        """A number that differs where weights do."""
        return fingerprint(self._parts())

    def _parts(self) -> dict[str, Part]:
        return {
            "policy": Part(self._policy, self._policy_optimizer),
            "value": Part(self._value, self._value_optimizer),
        }

    def _identity(self) -> dict[str, Any]:
        return {
            "stage": self._request.stage.name,
            "seed": self._request.seed,
            "first_policy_version": self._request.first_policy_version,
        }

    def _lr(self, base: float, step: int) -> float:
        optimizer = self._settings.optimizer
        return lr_at(step - 1, self._request.total_steps, base, optimizer.schedule, optimizer.warmup_steps)

    def _control_kl(self, kl: float | None, sequences: int) -> None:
        settings = self._settings.kl
        if settings.controller == "adaptive" and settings.target is not None and kl is not None:
            self._kl_coef = adaptive_kl(self._kl_coef, kl, settings.target, sequences, settings.horizon)

    def _metrics(self, rows: PpoRows, tokens: TokenRows, signals: Signals, updated: UpdateResult) -> Metrics:
        mask_BT = tokens.mask_BT
        batch = StepBatch(
            completions=[row.completion_ids.tolist() for row in rows.rollouts],
            stopped=[row.finish_reason == "stop" for row in rows.rollouts],
            scores=rows.scores,
            terms=rows.terms,
            logprobs_BT=tokens.padded(signals.logprobs_N),
            sampler_logprobs_BT=tokens.padded(signals.sampler_logprobs_N),
            ref_logprobs_BT=tokens.padded(signals.ref_logprobs_N),
            mask_BT=mask_BT,
            entropy_BT=tokens.padded(signals.entropy_N),
            beta=self._kl_coef,
            staleness=rows.staleness,
            refused=rows.refused,
            skipped=rows.skipped,
        )
        metrics, self._baseline = batch_metrics(batch, self._baseline)
        metrics["value/explained_variance"] = explained_variance(
            tokens.padded(signals.values_N), tokens.padded(signals.returns_N), mask_BT
        )
        return metrics


def _value_model(request: OpenRequest, inputs: Inputs, device: torch.device) -> ValueModel:
    if inputs.value_model is None:
        return value_from_policy(inputs.model, request.dtype, device)
    return value_from_reward_model(inputs.value_model, request.value_scale, request.value_offset, request.dtype, device)


def _adam_settings(settings: PpoSpec) -> AdamSettings:
    optimizer = settings.optimizer
    return AdamSettings(
        betas=optimizer.betas,
        eps=optimizer.eps,
        weight_decay=optimizer.weight_decay,
        grad_clip=optimizer.grad_clip,
        max_skipped=settings.max_skipped_updates,
    )


def _optimizer_metrics(policy: Policy, value: Value, updated: UpdateResult) -> Metrics:
    return {
        "optim/policy_lr": policy.lr,
        "optim/value_lr": value.lr,
        "optim/policy_grad_norm": updated.policy_norm.mean,
        "optim/value_grad_norm": updated.value_norm.mean,
        "optim/skipped": float(updated.skipped),
    }


def _real_tokens(tokens: TokenRows) -> int:
    """Prompt and completion tokens of the step, counted once whatever the epochs."""
    return sum(tokens.lengths) + sum(len(prompt) for prompt in tokens.prompts)


def _token_rows(rows: PpoRows, tokens: TokenRows, signals: Signals) -> list[TokenRow]:
    columns = [
        tokens.split(x_N)
        for x_N in (
            signals.logprobs_N,
            signals.values_N,
            signals.advantages_N,
            signals.returns_N,
            signals.entropy_N,
        )
    ]
    return [TokenRow(row.rollout_id, *arrays) for row, *arrays in zip(rows.rollouts, *columns, strict=True)]
