"""How a reward model scores answers that nobody wants, empty and repeated ones, compared with the SFT model's."""

import statistics
from collections.abc import Sequence

from quatrain.data.tables import PromptTable
from quatrain.jobspec.reward_section import RewardSection
from quatrain.orchestrator.job.run import JobRun
from quatrain.orchestrator.peers.service_clients import ScoreCall, ScoreSample
from quatrain.orchestrator.rollout.samples import Rollout

PROBED = 32
REPEATS = 3
SCORE_TIMEOUT_SECONDS = 300.0


async def degenerate_answers(
    run: JobRun, section: RewardSection, rollouts: Sequence[Rollout], median: float
) -> dict[str, float | None]:
    """Return the median score of empty and of repeated answers minus the SFT model's, under a raw reward section.

    Above 0 the reward model prefers them to the SFT model's answers, which PPO would exploit. None where the
    tokenizer has no end of sequence to end them with, or none of them was scored.
    """
    plan, ends = run.plan, run.plan.pinned.eos_token_ids
    names = ("reward_model/empty_above_sft", "reward_model/repeated_above_sft")
    if not ends:
        return dict.fromkeys(names)
    table = await run.prompts(plan.pinned.prompts)
    end = ends[0]
    empty = [_sample(table, rollout, [end]) for rollout in rollouts]
    repeated = [_sample(table, rollout, [*_answer(ends, rollout) * REPEATS, end]) for rollout in rollouts]
    medians = [await _median(run, section, samples) for samples in (empty, repeated)]
    return {name: None if value is None else value - median for name, value in zip(names, medians, strict=True)}


def _answer(eos_token_ids: Sequence[int], rollout: Rollout) -> list[int]:
    """Return the completion without its end of sequence."""
    ids: list[int] = rollout.completion_ids.tolist()
    return ids[:-1] if ids[-1] in eos_token_ids else ids


def _sample(table: PromptTable, rollout: Rollout, completion_ids: Sequence[int]) -> ScoreSample:
    index = rollout.sample.prompt_index
    return ScoreSample(
        prompt_ids=table.prompt_ids[index],
        completion_ids=completion_ids,
        prompt_json=table.prompt_json[index],
        finish_reason="stop",
        extra_json=table.extra_json[index],
    )


async def _median(run: JobRun, section: RewardSection, samples: list[ScoreSample]) -> float | None:
    call = ScoreCall(run.plan.job, samples, section.to_text(), run.plan.pinned.model)
    said = await run.retry_while_unavailable(lambda: run.context.services.score(call, SCORE_TIMEOUT_SECONDS))
    scores = [each.score for each in said.samples if each.score is not None]
    return statistics.median(scores) if scores else None
