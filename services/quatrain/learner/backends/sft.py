"""The SFT trainer: next-token loss on completion tokens, divided by the tokens of the optimizer batch."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from typing_extensions import override

from quatrain.algorithms.schedules import lr_at
from quatrain.algorithms.sft import sft_loss_sum
from quatrain.data.tables import read_sft
from quatrain.errors import InvalidInput
from quatrain.jobspec.sections import SftSpec
from quatrain.learner.backends import Check, Inputs, StepResult
from quatrain.learner.backends.checks import check_ids, finite_metrics
from quatrain.learner.backends.optimizer import AdamSettings, ModelOptimizer
from quatrain.learner.backends.ranks import ALONE, RankedTrainer, Ranks
from quatrain.learner.backends.row_order import RowOrder
from quatrain.learner.backends.state import Identity, Part, fingerprint, read_state, write_state
from quatrain.learner.backends.tokens import Microbatch, TokenRows
from quatrain.learner.requests import OpenRequest
from quatrain.models.loading import load_causal_lm, vocabulary_and_positions
from quatrain.models.logprobs import completion_logprobs, head_logprobs
from quatrain.models.output_head import output_head


@dataclass(frozen=True)
class _Sums:
    loss: float = 0.0
    right: float = 0.0


class SftTrainer(RankedTrainer):
    """A trainer of the base model on prompt and completion rows; batch t is a function of data, seed and t."""

    def __init__(
        self, request: OpenRequest, spec: SftSpec, inputs: Inputs, device: torch.device, ranks: Ranks = ALONE
    ) -> None:
        if inputs.data is None:
            raise InvalidInput("SFT needs its prepared rows.")
        self._request = request
        self._spec = spec
        self._device = device
        self._ranks = ranks
        self._model = load_causal_lm(inputs.model, dtype=request.dtype, device=device)
        self._optimizer = ModelOptimizer(
            "SFT", self._model, AdamSettings(weight_decay=spec.weight_decay, grad_clip=spec.grad_clip), ranks
        )
        table = read_sft(inputs.data)
        self._prompts, self._completions = table.prompt_ids, table.completion_ids
        vocabulary, positions = vocabulary_and_positions(self._model)
        for prompt, completion in zip(self._prompts, self._completions, strict=True):
            check_ids(np.concatenate([prompt, completion]), vocabulary, positions)
        self._order = RowOrder(request.stage.name, len(self._prompts), spec.batch_size, request.seed)
        self._step = 0

    @property
    @override
    def step(self) -> int:
        return self._step

    @override
    def train(self, step: int, batch: bytes | None, check: Check) -> StepResult:
        del batch
        started = time.perf_counter()
        rows = self._order.batch(step)
        tokens = TokenRows([self._prompts[row] for row in rows], [self._completions[row] for row in rows], self._device)
        micros = tokens.microbatches(tokens.shard(range(len(rows)), self._ranks), self._spec.microbatch_tokens)
        # Without a prompt the first completion token has no state that predicts it.
        count = sum(
            length - (not len(prompt)) for prompt, length in zip(tokens.prompts, tokens.lengths, strict=True) if length
        )
        sums = _Sums()
        for micro in micros:
            check()
            loss, part = self._loss(micro)
            (loss / max(count, 1)).backward()  # type: ignore[no-untyped-call]
            self._optimizer.accumulate()
            sums = _Sums(sums.loss + part.loss, sums.right + part.right)
        sums = _Sums(*map(sum, zip(*self._ranks.all_gather([sums.loss, sums.right]), strict=True)))
        lr = self._lr(step)
        norm = self._optimizer.update(lr, finite=math.isfinite(sums.loss))
        self._step = step
        read = sum(len(tokens.prompts[i]) + tokens.lengths[i] for i in range(len(rows)))
        metrics: dict[str, float | None] = {
            "loss": sums.loss / count if count else None,
            "accuracy": sums.right / count if count else None,
            "tokens": float(count),
            "optim/learning_rate": lr,
            "optim/grad_norm": norm,
            "optim/skipped": float(norm is None),
            "throughput/train_tokens_per_s": read / (time.perf_counter() - started),
        }
        return StepResult(finite_metrics(metrics))

    @override
    def logprobs(
        self,
        prompts: Sequence[npt.NDArray[np.int32]],
        completions: Sequence[npt.NDArray[np.int32]],
        temperature: float,
    ) -> list[npt.NDArray[np.float32]]:
        budget = self._spec.microbatch_tokens
        return completion_logprobs(self._model, prompts, completions, temperature=temperature, token_budget=budget)

    @override
    def write_model(self, folder: Path) -> None:
        self._model.save_pretrained(folder)

    @override
    def save(self, folder: Path) -> None:
        write_state(folder, self._parts(), {**self._identity(), "step": self._step})

    @override
    def load(self, folder: Path) -> None:
        values = read_state(folder, self._parts(), self._identity())
        self._step = values["step"]

    @override
    def fingerprint(self) -> int:
        return fingerprint(self._parts())

    def _parts(self) -> dict[str, Part]:
        return {"model": Part(self._model, self._optimizer)}

    def _identity(self) -> Identity:
        return {"stage": self._request.stage.name, "seed": self._request.seed, "rows": len(self._prompts)}

    def _lr(self, step: int) -> float:
        spec, total = self._spec, self._request.total_steps
        warmup_steps = math.ceil(spec.warmup_ratio * total)
        return lr_at(step - 1, total, spec.learning_rate, spec.schedule, min(warmup_steps, total - 1))

    def _loss(self, micro: Microbatch) -> tuple[Tensor, _Sums]:
        hidden_MD, targets_M = micro.hidden(self._model), micro.targets_M
        head = output_head(self._model)
        logprobs_M, _ = head_logprobs(hidden_MD, head, targets_M, temperature=1.0, want_entropy=False)
        loss = sft_loss_sum(logprobs_M, torch.ones_like(logprobs_M, dtype=torch.bool))
        with torch.no_grad():
            # The head runs a second time, in chunks: greedy hits need the whole row of logits, which is not kept.
            chunks = zip(torch.split(hidden_MD, 1024), torch.split(targets_M, 1024), strict=True)
            right = sum((head.logits(hidden).argmax(dim=-1) == target).sum().item() for hidden, target in chunks)
        return loss, _Sums(float(loss.detach()), float(right))
