"""The reward-model trainer: Bradley-Terry loss on preference pairs, the score read at the last real token by length."""

import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from typing_extensions import override

from quatrain.algorithms.reward_model import accuracy, held_out_report, pairwise_loss
from quatrain.algorithms.schedules import lr_at
from quatrain.data.tables import PairTable, read_pairs
from quatrain.errors import InvalidInput, WrongState
from quatrain.jobspec.sections import RewardSpec
from quatrain.learner.backends import Check, Inputs, StepResult
from quatrain.learner.backends.checks import check_ids, finite_metrics
from quatrain.learner.backends.optimizer import AdamSettings, ModelOptimizer
from quatrain.learner.backends.ranks import ALONE, RankedTrainer, Ranks
from quatrain.learner.backends.row_order import RowOrder
from quatrain.learner.backends.state import Identity, Part, fingerprint, read_state, write_state
from quatrain.learner.requests import OpenRequest
from quatrain.models.loading import load_sequence_classifier, vocabulary_and_positions
from quatrain.models.scores import batch_scores, last_token_scores
from quatrain.models.sequences import by_token_budget, pad_right


class RewardModelTrainer(RankedTrainer):
    """A trainer of a classifier with one label, its trunk from the SFT model, its head new."""

    def __init__(
        self, request: OpenRequest, spec: RewardSpec, inputs: Inputs, device: torch.device, ranks: Ranks = ALONE
    ) -> None:
        if inputs.data is None:
            raise InvalidInput("Reward-model training needs its prepared pairs.")
        self._request = request
        self._spec = spec
        self._device = device
        self._ranks = ranks
        self._model = load_sequence_classifier(
            inputs.model, dtype=request.dtype, device=device, new_head_seed=request.seed
        )
        self._optimizer = ModelOptimizer("reward", self._model, AdamSettings(grad_clip=spec.grad_clip), ranks)
        self._pairs = self._read(inputs.data)
        self._held_out = None if inputs.held_out is None else self._read(inputs.held_out)
        self._order = RowOrder(request.stage.name, len(self._pairs.chosen_ids), spec.batch_size, request.seed)
        # Wins and pairs of the epoch so far: one batch alone says little about accuracy.
        self._wins = 0.0
        self._seen = 0
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
        # Zero where another rank has the pair, until the scores are summed over the ranks.
        chosen = np.zeros(len(rows), dtype=np.float64)
        rejected = np.zeros(len(rows), dtype=np.float64)
        loss_sum = 0.0
        for places in self._groups(rows):
            check()
            loss_sum += self._backward([rows[place] for place in places], len(rows), places, (chosen, rejected))
        self._ranks.all_reduce_sum([torch.from_numpy(chosen), torch.from_numpy(rejected)])
        loss_sum = sum(loss for (loss,) in self._ranks.all_gather([loss_sum]))
        lr = lr_at(step - 1, self._request.total_steps, self._spec.learning_rate, "linear")
        norm = self._optimizer.update(lr, finite=math.isfinite(loss_sum))
        share = accuracy(chosen.tolist(), rejected.tolist()) or 0.0
        if step == 1 or self._order.epoch_of(step) != self._order.epoch_of(step - 1):
            self._wins, self._seen = 0.0, 0
        self._wins += share * len(rows)
        self._seen += len(rows)
        self._step = step
        tokens = sum(len(self._pairs.chosen_ids[row]) + len(self._pairs.rejected_ids[row]) for row in rows)
        metrics: dict[str, float | None] = {
            "loss": loss_sum / len(rows),
            "accuracy": share,
            "margin": float((chosen - rejected).mean()),
            "tokens": float(tokens),
            "optim/learning_rate": lr,
            "optim/grad_norm": norm,
            "optim/skipped": float(norm is None),
            "throughput/train_tokens_per_s": tokens / (time.perf_counter() - started),
        }
        if step == self._request.total_steps:
            metrics |= self._report()
        return StepResult(finite_metrics(metrics))

    @override
    def logprobs(
        self,
        prompts: Sequence[npt.NDArray[np.int32]],
        completions: Sequence[npt.NDArray[np.int32]],
        temperature: float,
    ) -> list[npt.NDArray[np.float32]]:
        raise WrongState("The reward stage trains a reward model, which has no logprobs; only a policy has.")

    @override
    def write_model(self, folder: Path) -> None:
        self._model.save_pretrained(folder)

    @override
    def save(self, folder: Path) -> None:
        write_state(
            folder, self._parts(), {**self._identity(), "step": self._step, "wins": self._wins, "seen": self._seen}
        )

    @override
    def load(self, folder: Path) -> None:
        values = read_state(folder, self._parts(), self._identity())
        self._wins, self._seen = values["wins"], values["seen"]
        self._step = values["step"]

    @override
    def fingerprint(self) -> int:
        return fingerprint(self._parts())

    def _parts(self) -> dict[str, Part]:
        return {"model": Part(self._model, self._optimizer)}

    def _identity(self) -> Identity:
        return {"stage": self._request.stage.name, "seed": self._request.seed, "rows": len(self._pairs.chosen_ids)}

    def _read(self, data: bytes) -> PairTable:
        pairs = read_pairs(data)
        vocabulary, positions = vocabulary_and_positions(self._model)
        for ids in (*pairs.chosen_ids, *pairs.rejected_ids):
            check_ids(ids, vocabulary, positions)
        return pairs

    def _groups(self, rows: Sequence[int]) -> list[list[int]]:
        """Return this rank's indices in `rows` as microbatches; the loss needs both sides of a pair in one."""
        lengths = [max(len(self._pairs.chosen_ids[row]), len(self._pairs.rejected_ids[row])) for row in rows]
        own = self._ranks.shard(lengths)
        groups = by_token_budget([lengths[place] for place in own], max(1, self._spec.microbatch_tokens // 2))
        return [[own[i] for i in group] for group in groups]

    def _backward(
        self, rows: list[int], pairs: int, places: list[int], scores: tuple[npt.NDArray[np.float64], ...]
    ) -> float:
        sides = [self._pairs.chosen_ids[row] for row in rows] + [self._pairs.rejected_ids[row] for row in rows]
        chosen_B, rejected_B = batch_scores(self._model, pad_right(sides, device=self._device)).chunk(2)
        margins = [self._pairs.margin[row] or 0.0 for row in rows]
        margin_B = torch.tensor(margins, dtype=torch.float32, device=self._device)
        loss = pairwise_loss(chosen_B, rejected_B, margin_B).sum()
        (loss / pairs).backward()  # type: ignore[no-untyped-call]
        self._optimizer.accumulate()
        for side, values_B in zip(scores, (chosen_B, rejected_B), strict=True):
            side[places] = values_B.detach().cpu().numpy()
        return float(loss.detach())

    def _report(self) -> dict[str, float | None]:
        metrics: dict[str, float | None] = {
            "reward_model/accuracy": self._wins / self._seen if self._seen else None,
            "reward_model/held_out_accuracy": None,
            "reward_model/calibration_error": None,
            "reward_model/length_corr": None,
        }
        pairs = self._held_out
        if pairs is None or not pairs.chosen_ids:
            return metrics
        budget = self._spec.microbatch_tokens
        sides = (pairs.chosen_ids, pairs.rejected_ids)
        scores = [last_token_scores(self._model, rows, budget).astype(float).tolist() for rows in sides]
        lengths = [[len(ids) - prompt for ids, prompt in zip(rows, pairs.prompt_length, strict=True)] for rows in sides]
        report = held_out_report(scores[0], scores[1], lengths[0], lengths[1])
        metrics["reward_model/held_out_accuracy"] = report.accuracy
        metrics["reward_model/calibration_error"] = report.calibration_error
        metrics["reward_model/length_corr"] = report.length_correlation
        return metrics
