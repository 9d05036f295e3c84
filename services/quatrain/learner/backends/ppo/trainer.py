"""The PPO trainer: policy and value model, their optimizers, and the state that lives from step to step."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from typing_extensions import override

from quatrain.algorithms.kl import adaptive_kl
from quatrain.algorithms.lengths import LengthBaseline
from quatrain.algorithms.metrics import Metrics, StepBatch, batch_metrics, training_metrics
from quatrain.batches import TokenRow, write_tokens
from quatrain.errors import InvalidInput
from quatrain.jobspec.sections import PpoSpec
from quatrain.json_values import JsonObject
from quatrain.learner.backends import Check, Inputs, StepResult
from quatrain.learner.backends.checks import finite_metrics
from quatrain.learner.backends.lanes import TwoLanes
from quatrain.learner.backends.optimizer import AdamSettings, ModelOptimizer
from quatrain.learner.backends.ppo.critic import make_critic
from quatrain.learner.backends.ppo.rows import Bounds, PpoRows, read_rows
from quatrain.learner.backends.ppo.signals import compute_signals
from quatrain.learner.backends.ppo.step import Signals, StepSettings, UpdateResult
from quatrain.learner.backends.ppo.updates import Policy, run_updates
from quatrain.learner.backends.ranks import ALONE, RankedTrainer, Ranks
from quatrain.learner.backends.state import Identity, Part, fingerprint, read_state, write_state
from quatrain.learner.backends.tokens import TokenRows
from quatrain.learner.requests import OpenRequest
from quatrain.models.loading import load_causal_lm, vocabulary_and_positions
from quatrain.models.logprobs import completion_logprobs


class PpoTrainer(RankedTrainer):
    """A trainer of policy version step - 1 into version step, from sealed batches alone."""

    def __init__(
        self, request: OpenRequest, spec: PpoSpec, inputs: Inputs, device: torch.device, ranks: Ranks = ALONE
    ) -> None:
        self._request = request
        self._spec = spec
        self._device = device
        self._ranks = ranks
        adam = _adam_settings(spec)
        model = load_causal_lm(inputs.model, dtype=request.dtype, device=device)
        self._policy = Policy(model, ModelOptimizer("policy", model, adam, ranks))
        self._critic = make_critic(request, spec, inputs, device, adam, ranks)
        self._bounds = Bounds(*vocabulary_and_positions(model))
        self._kl_coef = spec.kl.coef
        self._baseline = LengthBaseline()
        self._step = 0

    @property
    @override
    def step(self) -> int:
        return self._step

    @override
    def train(self, step: int, batch: bytes | None, check: Check) -> StepResult:
        if batch is None:
            raise InvalidInput(f"PPO step {step} needs a sealed batch.")
        started = time.perf_counter()
        rows = read_rows(batch, step - 1, self._bounds)
        tokens = TokenRows(
            [row.prompt_ids for row in rows.rollouts], [row.completion_ids for row in rows.rollouts], self._device
        )
        settings = self._step_settings(step)
        # Without a critic the second lane would be idle.
        lanes = TwoLanes(self._device, self._ranks, parallel=bool(self._critic.parts))
        signals = compute_signals(self._policy.model, self._critic, tokens, rows, settings, lanes, check)
        by_policy, by_critic = run_updates(self._policy, self._critic, tokens, signals, settings, lanes, check)
        metrics = self._batch_metrics(rows, tokens, signals)
        metrics |= _update_metrics(by_policy, by_critic, settings)
        metrics |= self._critic.metrics(tokens, signals, settings, by_critic)
        metrics["throughput/train_tokens_per_s"] = _real_tokens(tokens) / (time.perf_counter() - started)
        self._control_kl(metrics["kl/ref_seq"], len(rows.rollouts))
        self._step = step
        return StepResult(finite_metrics(metrics), write_tokens(_token_rows(rows, tokens, signals)))

    @override
    def logprobs(
        self,
        prompts: Sequence[npt.NDArray[np.int32]],
        completions: Sequence[npt.NDArray[np.int32]],
        temperature: float,
    ) -> list[npt.NDArray[np.float32]]:
        budget = self._spec.optimizer.microbatch_tokens
        return completion_logprobs(
            self._policy.model, prompts, completions, temperature=temperature, token_budget=budget
        )

    @override
    def write_model(self, folder: Path) -> None:
        self._policy.model.save_pretrained(folder)

    @override
    def save(self, folder: Path) -> None:
        baseline = self._baseline
        values: JsonObject = {
            **self._identity(),
            "step": self._step,
            "kl_coef": self._kl_coef,
            "length_baseline": [baseline.steps, list(baseline.lengths), list(baseline.scores)],
        }
        write_state(folder, self._parts(), values)

    @override
    def load(self, folder: Path) -> None:
        values = read_state(folder, self._parts(), self._identity())
        if self._spec.kl.controller == "adaptive":  # A fixed one may have been changed by a fork.
            self._kl_coef = values["kl_coef"]
        steps, lengths, scores = values["length_baseline"]
        self._baseline = LengthBaseline(steps, tuple(lengths), tuple(scores))
        self._step = values["step"]

    @override
    def fingerprint(self) -> int:
        return fingerprint(self._parts())

    def _parts(self) -> dict[str, Part]:
        return {"policy": self._policy, **self._critic.parts}

    def _identity(self) -> Identity:
        return {"stage": self._request.stage.name, "seed": self._request.seed}

    def _step_settings(self, step: int) -> StepSettings:
        request = self._request
        return StepSettings(
            spec=self._spec,
            step=step,
            total_steps=request.total_steps,
            seed=request.seed,
            temperature=request.temperature,
            kl_coef=self._kl_coef,
            exact_logprobs=request.exact_logprobs,
            ranks=self._ranks,
        )

    def _control_kl(self, kl: float | None, sequences: int) -> None:
        spec = self._spec.kl
        if spec.controller == "adaptive" and spec.target is not None and kl is not None:
            self._kl_coef = adaptive_kl(self._kl_coef, kl, spec.target, sequences, spec.horizon)

    def _batch_metrics(self, rows: PpoRows, tokens: TokenRows, signals: Signals) -> Metrics:
        batch = StepBatch(
            completions=[row.completion_ids.tolist() for row in rows.rollouts],
            stopped=[row.finish_reason == "stop" for row in rows.rollouts],
            scores=rows.scores,
            terms=rows.terms,
            logprobs_BT=tokens.padded(signals.logprobs_N),
            sampler_logprobs_BT=tokens.padded(signals.sampler_logprobs_N),
            ref_logprobs_BT=tokens.padded(signals.ref_logprobs_N),
            mask_BT=tokens.mask_BT,
            entropy_BT=tokens.padded(signals.entropy_N),
            beta=self._kl_coef,
            staleness=rows.staleness,
            refused=rows.refused,
            skipped=rows.skipped,
        )
        metrics, self._baseline = batch_metrics(batch, self._baseline)
        return metrics


def _adam_settings(spec: PpoSpec) -> AdamSettings:
    optimizer = spec.optimizer
    return AdamSettings(
        betas=optimizer.betas,
        eps=optimizer.eps,
        weight_decay=optimizer.weight_decay,
        grad_clip=optimizer.grad_clip,
        max_skipped=spec.max_skipped_updates,
    )


def _update_metrics(by_policy: UpdateResult, by_critic: UpdateResult, settings: StepSettings) -> Metrics:
    spec = settings.spec
    sums = by_policy.sums + by_critic.sums
    first = None if by_policy.first is None else by_policy.first.policy
    return {
        **training_metrics(sums, first, settings.kl_coef_in_loss, spec.entropy_coef),
        "optim/policy_lr": settings.lr(spec.optimizer.policy_lr),
        "optim/policy_grad_norm": by_policy.norm.mean,
        "optim/skipped": float(by_policy.skipped + by_critic.skipped),
    }


def _real_tokens(tokens: TokenRows) -> int:
    """Return the prompt and completion tokens of the step, counted once whatever the epochs."""
    return sum(tokens.lengths) + sum(len(prompt) for prompt in tokens.prompts)


def _token_rows(rows: PpoRows, tokens: TokenRows, signals: Signals) -> list[TokenRow]:
    columns = (
        signals.logprobs_N,
        signals.values_N,
        signals.advantages_N,
        signals.returns_N,
        signals.entropy_N,
    )
    nothing = [np.empty(0, np.float32)] * len(rows.rollouts)
    arrays = [nothing if column_N is None else tokens.split(column_N) for column_N in columns]
    return [TokenRow(row.rollout_id, *of_row) for row, *of_row in zip(rows.rollouts, *arrays, strict=True)]
