"""The formulas by themselves find the best policy, with a fraction of the budget that the tasks allow."""

from pathlib import Path

import pytest
from tests.closed_form.enumeration import evaluate
from tests.closed_form.forms import count_symbol, length_cost
from tests.closed_form.lengths import LengthTask, evaluate_lengths
from tests.closed_form.models import TinyModel, build
from tests.closed_form.ppo_loop import Settings, train


def _zeros(ids: list[int]) -> float:
    return float(ids.count(0))


@pytest.mark.slow
def test_task_a(tmp_path: Path) -> None:
    base = build(tmp_path / "base", TinyModel(6))

    trained = train(base, tmp_path / "out", Settings(_zeros, 6, 4, steps=20, sequences=128, epochs=2, minibatches=2))

    result = evaluate(trained, [1, 0], 6, 4, lambda ids, stopped: _zeros(list(ids)), 0.5)
    best = count_symbol(6, 4, 0.5)
    assert result.gap < 0.003
    assert result.expected_reward == pytest.approx(best.expected_reward, abs=0.1)
    assert result.kl == pytest.approx(best.kl, abs=0.2)


@pytest.mark.slow
def test_task_c(tmp_path: Path) -> None:
    task = LengthTask(vocab_size=20, max_length=16, reward=length_cost(0.1, 1.0), beta=0.5, eos_id=3)
    base = build(tmp_path / "base", TinyModel(20, eos_id=3))
    settings = Settings(
        lambda ids: -0.1 * len(ids), 20, 16, eos_id=3, penalty=1.0, steps=30, sequences=256, epochs=2, minibatches=2
    )

    trained = train(base, tmp_path / "out", settings)

    result = evaluate_lengths(trained, [1, 0], task, depth=1)
    assert result.gap < 0.003
    assert result.gap_se < 1e-4
    assert result.mean_length == pytest.approx(task.best.mean_length, abs=0.2)
