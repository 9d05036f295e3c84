"""What trains: one small protocol, implemented by the torch trainer of each stage and by a fake that needs no model.

A trainer is single-threaded: the service calls it from one model thread only. It knows nothing of tokens, gRPC or the
object store; it gets local folders and bytes, and gives back numbers, bytes and files in a folder.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from quatrain.learner.requests import OpenRequest

Check = Callable[[], None]
"""Called between microbatches: raises if the session has ended meanwhile, so that a superseded step stops early."""


@dataclass(frozen=True)
class Inputs:
    """What an OpenRequest names, fetched and verified: local folders, and the bytes of the prepared tables."""

    model: Path
    value_model: Path | None = None
    tokenizer: Path | None = None
    data: bytes | None = None
    held_out: bytes | None = None


@dataclass(frozen=True)
class StepResult:
    """What one step gives: metrics (None: not defined) and, if it trained on rollouts, per-token results as Parquet."""

    metrics: Mapping[str, float | None]
    tokens: bytes | None = None


class Trainer(Protocol):
    """One stage in memory.

    ::

        trainer = backend.open(request, inputs)
        trainer.load(checkpoint)  # or start at step 0
        while trainer.step < request.total_steps:
            result = trainer.train(trainer.step + 1, batch, check)
        trainer.write_model(folder)

    After an exception from `train` its state is undefined: the stage must be opened again.
    """

    @property
    def step(self) -> int:
        """Return the steps of the stage that are done."""
        ...

    def train(self, step: int, batch: bytes | None, check: Check) -> StepResult:
        """Train step `self.step + 1`.

        `batch` is a sealed batch if the stage uses rollouts and None otherwise. Raises Corrupt or InvalidInput for an
        unusable batch and RunFailed after too many skipped updates.
        """
        ...

    def logprobs(
        self,
        prompts: Sequence[npt.NDArray[np.int32]],
        completions: Sequence[npt.NDArray[np.int32]],
        temperature: float,
    ) -> list[npt.NDArray[np.float32]]:
        """Return logprobs of the completions under the policy in training. Raises WrongState if the stage has none."""
        ...

    def write_model(self, folder: Path) -> None:
        """Write config.json, generation_config.json (language models) and the weights as safetensors."""
        ...

    def save(self, folder: Path) -> None:
        """Write all state as safetensors and JSON; `load` of it continues bit-identically on one machine type."""
        ...

    def load(self, folder: Path) -> None:
        """Take over the state that `save` wrote. Raises Corrupt if it does not fit this stage."""
        ...


class Backend(Protocol):
    """A maker of trainers: `backend.open(request, artifacts.fetch(request))`. One is in use at a time."""

    @property
    def device(self) -> str:
        """Return the device in words."""
        ...

    def open(self, request: OpenRequest, inputs: Inputs) -> Trainer:
        """Return a trainer at step 0 of the requested stage. Raises InvalidInput or InvalidData if it cannot train."""
        ...
