from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.unit.learner.stages import ppo_settings, stage_request
from tests.unit.models.tiny_models import save_tiny_model

from quatrain.learner.backends import Inputs
from quatrain.learner.backends.torch_backend import TorchBackend
from quatrain.stages import PPO


@pytest.fixture(autouse=True)
def own_settings() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


def test_a_deterministic_job_leaves_the_next_one_free(tmp_path: Path) -> None:
    backend = TorchBackend("cpu", 1)
    inputs = Inputs(model=save_tiny_model(tmp_path / "model"))
    seen = []

    for deterministic in (True, False):
        backend.open(stage_request(PPO, ppo_settings(), deterministic=deterministic), inputs)
        seen.append(torch.are_deterministic_algorithms_enabled())

    assert seen == [True, False]
