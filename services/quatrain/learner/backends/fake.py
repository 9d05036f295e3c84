"""A backend without a model, for tests of everything around the learner. It learns nothing, and says so by its name.

Deterministic: its whole state is one digest, folded over what it was fed; metrics and weights are functions of it.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file
from typing_extensions import override

from quatrain.batches import BatchRow, TokenRow, read_batch, write_tokens
from quatrain.digests import canonical_json
from quatrain.errors import Corrupt, WrongState
from quatrain.learner.backends import Backend, Check, Inputs, StepResult, Trainer
from quatrain.learner.requests import OpenRequest

_STATE = "state.json"


class FakeTrainer(Trainer):
    """A trainer that counts steps and folds a digest; `number` is a value in 0..1 drawn from it."""

    def __init__(self, request: OpenRequest) -> None:
        self._request = request
        self._step = 0
        self._digest = _fold("start", request.stage.name, str(request.seed), request.model.digest)

    @property
    @override
    def step(self) -> int:
        return self._step

    @override
    def train(self, step: int, batch: bytes | None, check: Check) -> StepResult:
        check()
        self._digest = _fold(self._digest, str(step), *([] if batch is None else map(_content, read_batch(batch))))
        self._step = step
        number = int(self._digest[:8], 16) / 2**32
        metrics: Mapping[str, float | None] = {"loss": number, "accuracy": number, "tokens": 1.0}
        if batch is None or not self._request.stage.uses_rollouts:
            return StepResult(metrics)
        rows = [row for row in read_batch(batch) if row.status == "rollout"]
        scores = [row.score for row in rows if row.score is not None]
        metrics = {
            "reward/score_mean": sum(scores) / len(scores) if scores else None,
            "kl/ref_seq": number,
            "kl/coef": 0.0,
            "policy/loss": -number,
            "policy/clip_fraction": 0.0,
            "value/loss": number,
            "value/explained_variance": None,
            "loss/total": 0.0,
            "optim/skipped": 0.0,
        }
        return StepResult(metrics, write_tokens([_token_row(row.rollout_id, row.logprobs) for row in rows]))

    @override
    def logprobs(
        self,
        prompts: Sequence[npt.NDArray[np.int32]],
        completions: Sequence[npt.NDArray[np.int32]],
        temperature: float,
    ) -> list[npt.NDArray[np.float32]]:
        if self._request.stage.makes_reward_model:
            raise WrongState(f"The stage {self._request.stage} trains no policy.")
        return [np.full(len(completion), -1.0, dtype=np.float32) for completion in completions]

    @override
    def write_model(self, folder: Path) -> None:
        (folder / "config.json").write_bytes(canonical_json({"model_type": "quatrain-fake"}))
        (folder / "generation_config.json").write_bytes(canonical_json({}))
        weights = np.frombuffer(bytes.fromhex(self._digest), dtype=np.uint8)
        save_file({"digest": weights.copy()}, folder / "model.safetensors")

    @override
    def save(self, folder: Path) -> None:
        (folder / _STATE).write_bytes(canonical_json({"step": self._step, "digest": self._digest}))

    @override
    def load(self, folder: Path) -> None:
        try:
            values = json.loads((folder / _STATE).read_bytes())
            self._step, self._digest = int(values["step"]), str(values["digest"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Corrupt(f"The checkpoint is none of the fake backend's: {error}") from error


class FakeBackend(Backend):
    """A maker of fake trainers."""

    @property
    @override
    def device(self) -> str:
        return "none (fake)"

    @override
    def open(self, request: OpenRequest, inputs: Inputs) -> Trainer:
        del inputs
        return FakeTrainer(request)


def _fold(*parts: str) -> str:
    return hashlib.sha256("/".join(parts).encode()).hexdigest()


def _content(row: BatchRow) -> str:
    """Return the row without its id, which names the job, so that equal jobs give equal weights."""
    return repr((row.status, row.prompt_ids.tolist(), row.completion_ids.tolist(), row.logprobs.tolist(), row.score))


def _token_row(rollout_id: str, logprobs: npt.NDArray[np.float32]) -> TokenRow:
    zeros = np.zeros_like(logprobs)
    return TokenRow(rollout_id, logprobs, zeros, zeros, zeros, zeros)
