"""Arguments and caps that a spec gives to a function, with real processes; the ready-made functions."""

import asyncio
import math
from pathlib import Path
from typing import Any

import pytest
from tests.unit.reward.scenery import batch, make_tokenizer, sample

from quatrain.errors import PermissionRefused, RewardFunctionError
from quatrain.jobspec.reward_section import FunctionSource
from quatrain.reward.backends.base import SourceScores
from quatrain.reward.backends.functions import FunctionBackend, FunctionSettings
from quatrain.reward.samples import Batch
from quatrain.storage.memory import MemoryStore


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Batch:
    (tmp_path / "capped_rewards.py").write_text(
        "def not_finite(completions, **kwargs): return [float('nan'), float('inf')]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return batch(make_tokenizer(tmp_path / "tokenizer"), sample("a", "ad$"), sample("b", "cd"))


async def score(two: Batch, path: str, args: dict[str, Any], clip: float | None = None) -> SourceScores:
    """The scores of a service whose operator has opened one package."""
    backend = FunctionBackend(MemoryStore(), FunctionSettings(packages=("capped_rewards",)))
    try:
        return await backend.score(FunctionSource(path=path, args=args, clip=clip), two)
    finally:
        await backend.close()


def test_ready_made_functions_are_open_to_every_job_with_their_arguments(two: Batch) -> None:
    band = asyncio.run(score(two, "quatrain.rewards:length_band", {"low": 3, "high": 9}))
    capped = asyncio.run(score(two, "quatrain.rewards:length_band", {"low": 3, "high": 9}, clip=0.75))
    with pytest.raises(RewardFunctionError, match=r"no argument 'hihg'; its `args` are low, high, unit"):
        asyncio.run(score(two, "quatrain.rewards:length_band", {"low": 3, "hihg": 9}))
    with pytest.raises(RewardFunctionError, match="asks for the column 'low'"):
        asyncio.run(score(two, "quatrain.rewards:length_band", {"high": 9}))
    with pytest.raises(PermissionRefused, match="functions of 'quatrain' are not open to jobs"):
        asyncio.run(score(two, "quatrain.reward.builtin:brevity", {}))

    assert band.values == pytest.approx((1.0, 2 / 3))
    assert capped.values == pytest.approx((0.75, 2 / 3))
    assert capped.terms == band.terms
    assert "?" in band.version


def test_a_cap_hides_no_infinity(two: Batch) -> None:
    values = asyncio.run(score(two, "capped_rewards:not_finite", {}, clip=1.0)).values

    assert math.isnan(values[0] or 0.0)
    assert values[1] == math.inf
