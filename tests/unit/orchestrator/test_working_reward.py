from typing import Any, cast

import pytest
from tests.unit.orchestrator.scenery import DIGEST, make_plan, with_pinned

from quatrain.errors import InvalidSpec
from quatrain.joblog import JobLog
from quatrain.jobspec.reward_section import ModelSource, RewardSection
from quatrain.orchestrator.job.run import JobRun
from quatrain.orchestrator.stages.working_reward import value_opening
from quatrain.orchestrator.submission.rewards import value_init
from quatrain.storage.memory import MemoryStore


def test_the_value_model_starts_with_all_that_is_subtracted_from_the_score() -> None:
    plan = with_pinned(make_plan(), reward_is_local_model=True)
    nothing = cast(Any, None)
    run = JobRun(plan, nothing, JobLog(MemoryStore(), plan.job), 1, nothing)
    model = ModelSource(uri="store:r", digest=DIGEST, offset=2.5)

    opening = value_opening(run, RewardSection(models=(model,), offset=0.5, scale=2.0))

    assert opening.value_offset == pytest.approx(3.0)
    assert opening.value_scale == 2.0


def test_the_value_model_starts_from_the_reward_model_where_it_can() -> None:
    assert [value_init(None, True), value_init(None, False)] == ["reward", "sft"]
    assert value_init("sft", True) == "sft"


def test_a_reward_model_that_reads_other_tokens_cannot_start_the_value_model() -> None:
    with pytest.raises(InvalidSpec) as refusal:
        value_init("reward", False)

    assert [wrong.field for wrong in refusal.value.violations] == ["ppo.value_init"]
