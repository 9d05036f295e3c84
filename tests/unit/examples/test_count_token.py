from pathlib import Path

import pytest
from tests.unit.examples.loading import COUNT_TOKEN, script

from quatrain.text import Tokenizer

CHECK = script(COUNT_TOKEN, "check")


def test_the_optimum_is_the_closed_form() -> None:
    best = CHECK.optimum()
    assert (best.reward, best.kl, best.objective) == pytest.approx((2.385672, 1.871128, 1.450108), abs=1e-6)


def test_the_base_model_is_uniform(tmp_path: Path) -> None:
    folder = script(COUNT_TOKEN, "make_base").make(tmp_path / "base")

    found = CHECK.judge(folder)

    assert found.reward == pytest.approx(4 / 6, abs=1e-9)
    assert found.kl == pytest.approx(0.0, abs=1e-9)
    assert Tokenizer.load(folder).encode("s2 s3") == list(CHECK.PROMPT)


def test_a_policy_off_the_optimum_is_refused() -> None:
    best = CHECK.optimum()
    assert CHECK.within(CHECK.Judgement(best.reward + 0.01, best.kl + 0.02), best)
    assert not CHECK.within(CHECK.Judgement(best.reward - 0.06, best.kl), best)
    assert not CHECK.within(CHECK.Judgement(best.reward, best.kl + 0.06), best)
    assert not CHECK.within(CHECK.Judgement(best.reward - 0.04, best.kl), best)
