from typing import Any

import pytest
from tests.unit.orchestrator.scenery import make_plan

from quatrain.config import ProcessConfig
from quatrain.errors import InvalidSpec
from quatrain.jobspec import JobSpec, parse_spec
from quatrain.orchestrator.submission.step_bounds import StepBounds

BOUNDS = StepBounds(samples=100, tokens=10_000, chunk_samples=20, chunk_tokens=1_000)
MAX_PROMPT_TOKENS = 10


def spec(**ppo: Any) -> JobSpec:
    """24 samples of up to 20 tokens each, in chunks of 4."""
    document: dict[str, Any] = dict(make_plan().document.request)
    ppo = {"generation": {"max_new_tokens": 10}, "prompts_per_step": 24, **ppo}
    reward = {"center": True, "center_samples": 20, **ppo.pop("reward", {})}
    return parse_spec(document | {"ppo": document["ppo"] | ppo, "reward": document["reward"] | reward})


def refusals(asked: JobSpec, eval_prompts: int = 0) -> dict[str, str]:
    try:
        BOUNDS.check(asked, MAX_PROMPT_TOKENS, eval_prompts)
    except InvalidSpec as error:
        return {each.field: each.description for each in error.violations}
    return {}


def test_what_fits_is_accepted_up_to_the_bound() -> None:
    assert refusals(spec(prompts_per_step=100), eval_prompts=100) == {}
    assert refusals(spec(prompts_per_step=25, samples_per_prompt=2, staleness=1)) == {}
    assert refusals(spec(chunk_size=20)) == {}
    assert refusals(spec(prompts_per_step=20, chunk_size=2_000_000_000, generation={"max_new_tokens": 40})) == {}
    assert refusals(spec(chunk_size=1, generation={"max_new_tokens": 406})) == {}


@pytest.mark.parametrize(
    ("ppo", "field", "words"),
    [
        ({"prompts_per_step": 101}, "ppo.prompts_per_step", ["101 samples", "holds 100", "max_step_samples"]),
        ({"samples_per_prompt": 5}, "ppo.prompts_per_step", ["24 prompts", "ppo.samples_per_prompt 5", "120 samples"]),
        ({"staleness": 4}, "ppo.prompts_per_step", ["ppo.staleness 4", "120 samples"]),
        ({"reward": {"center_samples": 101}}, "reward.center_samples", ["101 samples", "max_step_samples"]),
        ({"chunk_size": 21}, "ppo.chunk_size", ["21 samples", "takes 20", "orchestrator.max_chunk_samples"]),
        (
            {"generation": {"max_new_tokens": 407}, "chunk_size": 1},
            "ppo.prompts_per_step",
            ["417 tokens each", "longest prompt has 10", "max_new_tokens is 407", "10000", "max_step_tokens"],
        ),
        (
            {"generation": {"max_new_tokens": 41}, "chunk_size": 20},
            "ppo.chunk_size",
            ["20 samples", "51 tokens each", "takes 1000 tokens", "server.max_message_mib"],
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_the_field_and_the_setting(
    ppo: dict[str, Any], field: str, words: list[str]
) -> None:
    text = refusals(spec(**ppo))[field]
    assert [word for word in words if word not in text] == []


def test_steps_that_are_never_made_do_not_count() -> None:
    assert refusals(spec(staleness=2_000_000_000, steps=4)) == {}
    assert "ppo.prompts_per_step" in refusals(spec(staleness=2_000_000_000, steps=5))


def test_an_evaluation_counts_its_prompts() -> None:
    assert "101 prompts" in refusals(spec(), eval_prompts=101)["ppo.eval_prompts"]


def test_no_completions_are_counted_for_an_offset_that_is_not_measured() -> None:
    assert refusals(spec(reward={"center": False, "center_samples": 2_000_000_000})) == {}


def test_what_needs_no_data_is_refused_before_they_are_read() -> None:
    with pytest.raises(InvalidSpec, match="max_step_samples"):
        BOUNDS.check_samples(spec(prompts_per_step=101))
    BOUNDS.check_samples(spec(generation={"max_new_tokens": 2_000_000}))


def test_bounds_come_from_the_configuration() -> None:
    assert StepBounds.of(ProcessConfig()) == StepBounds(2**16, 2**25, 2**12, 2**22)


@pytest.mark.parametrize(("mib", "tokens"), [(1, 2**16), (64, 2**22), (128, 2**22)])
def test_a_chunk_is_bounded_by_the_smaller_of_server_and_channel(mib: int, tokens: int) -> None:
    config = ProcessConfig.model_validate({"server": {"max_message_mib": mib}})

    assert StepBounds.of(config).chunk_tokens == tokens
