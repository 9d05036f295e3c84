"""The side of rank 0: a backend and trainers that change weights only together with the other ranks."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from quatrain.errors import WrongState
from quatrain.learner.backends import Backend, Check, Inputs, StepResult, Trainer
from quatrain.learner.backends.ranks import RankedTrainer
from quatrain.learner.backends.torch_backend import TorchBackend
from quatrain.learner.group.codec import request_to_json
from quatrain.learner.group.group import Group
from quatrain.learner.requests import OpenRequest


class LeaderBackend(Backend):
    """A backend that opens a stage on all ranks."""

    def __init__(self, backend: TorchBackend, group: Group) -> None:
        self._backend = backend
        self._group = group
        self._opened: LeaderTrainer | None = None

    @property
    @override
    def device(self) -> str:
        return f"{self._group.size} ranks of {self._backend.device}"

    @override
    def open(self, request: OpenRequest, inputs: Inputs) -> Trainer:
        self._opened = None
        with self._group.broadcast_command("open", request=request_to_json(request)):
            trainer = self._backend.open(request, inputs)
            self._group.compare(trainer.fingerprint())
        self._opened = LeaderTrainer(self, trainer, self._group)
        return self._opened

    def require(self, trainer: "LeaderTrainer") -> None:
        """Raise WrongState for a trainer whose stage is no longer open on the other ranks."""
        if trainer is not self._opened:
            raise WrongState("The ranks of the learner have another stage open; open this one again.")


class LeaderTrainer(Trainer):
    """A trainer that trains and loads with the other ranks. It writes the weights alone: all ranks have the same."""

    def __init__(self, backend: LeaderBackend, trainer: RankedTrainer, group: Group) -> None:
        self._backend = backend
        self._trainer = trainer
        self._group = group

    @property
    @override
    def step(self) -> int:
        return self._trainer.step

    @override
    def train(self, step: int, batch: bytes | None, check: Check) -> StepResult:
        def checked() -> None:
            check()
            self._group.check_peers()

        self._backend.require(self)
        with self._group.broadcast_command("train", step=step, size=None if batch is None else len(batch)):
            if batch is not None:
                self._group.broadcast(batch, len(batch))
            result = self._trainer.train(step, batch, checked)
            self._group.compare(self._trainer.fingerprint())
        return result

    @override
    def logprobs(
        self,
        prompts: Sequence[npt.NDArray[np.int32]],
        completions: Sequence[npt.NDArray[np.int32]],
        temperature: float,
    ) -> list[npt.NDArray[np.float32]]:
        return self._trainer.logprobs(prompts, completions, temperature)

    @override
    def write_model(self, folder: Path) -> None:
        self._trainer.write_model(folder)

    @override
    def save(self, folder: Path) -> None:
        self._trainer.save(folder)

    @override
    def load(self, folder: Path) -> None:
        self._backend.require(self)
        with self._group.broadcast_command("load"):
            self._trainer.load(folder)
            self._group.compare(self._trainer.fingerprint())
