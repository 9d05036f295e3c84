"""The real backend: torch and transformers on one device."""

import platform
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from pydantic import ValidationError
from typing_extensions import override

from quatrain.digests import parse_json
from quatrain.errors import FieldViolation, InvalidInput
from quatrain.jobspec.sections import PpoSpec, RewardSpec, Section, SftSpec
from quatrain.learner.backends import Backend, Inputs
from quatrain.learner.backends.ppo.trainer import PpoTrainer
from quatrain.learner.backends.ranks import ALONE, RankedTrainer, Ranks
from quatrain.learner.backends.reward_model import RewardModelTrainer
from quatrain.learner.backends.sft import SftTrainer
from quatrain.learner.requests import OpenRequest
from quatrain.models.device import pick_device, set_determinism, set_threads
from quatrain.stages import PPO, REWARD, SFT, Stage

S = TypeVar("S", bound=Section)
Opener = Callable[[OpenRequest, Inputs, torch.device, Ranks], RankedTrainer]


def _opener(
    section: type[S], trainer: Callable[[OpenRequest, S, Inputs, torch.device, Ranks], RankedTrainer]
) -> Opener:
    def open_stage(request: OpenRequest, inputs: Inputs, device: torch.device, ranks: Ranks) -> RankedTrainer:
        return trainer(request, read_section(section, request.config_json), inputs, device, ranks)

    return open_stage


_OPENERS: Mapping[Stage, Opener] = {
    SFT: _opener(SftSpec, SftTrainer),
    REWARD: _opener(RewardSpec, RewardModelTrainer),
    PPO: _opener(PpoSpec, PpoTrainer),
}
"""Of each stage its section of the spec and its trainer."""


class TorchBackend(Backend):
    """Training on `device` (auto, cpu, cuda, cuda:N) as one of `ranks`; `threads` 0 leaves torch's choice."""

    def __init__(self, device: str, threads: int, ranks: Ranks = ALONE) -> None:
        self._ranks = ranks
        self._device = pick_device(device)
        self._threads = threads

    @property
    @override
    def device(self) -> str:
        if self._device.type == "cuda":
            return f"cuda {torch.cuda.get_device_name(self._device)}"
        return f"cpu {platform.machine()}, {self._threads or torch.get_num_threads()} threads"

    @override
    def open(self, request: OpenRequest, inputs: Inputs) -> RankedTrainer:
        set_threads(self._threads)
        torch.manual_seed(request.seed)
        set_determinism(request.deterministic)
        return _OPENERS[request.stage](request, inputs, self._device, self._ranks)


def read_section(section: type[S], config_json: str) -> S:
    """Read a resolved section of the job spec. Raises InvalidInput naming the wrong fields."""
    try:
        document = parse_json(config_json)
    except ValueError as error:
        raise InvalidInput(f"config_json is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidInput("config_json must be a JSON object, the resolved section of the stage.")
    try:
        return section.model_validate(document)
    except ValidationError as error:
        violations = [
            FieldViolation(".".join(str(part) for part in wrong["loc"]), wrong["msg"]) for wrong in error.errors()
        ]
        fields = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
        raise InvalidInput(f"config_json is not a resolved section: {fields}.", violations) from error
