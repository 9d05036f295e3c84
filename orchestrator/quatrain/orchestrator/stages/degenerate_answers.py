"""How a reward model scores answers that nobody wants: empty and repeated ones, against what the SFT model says."""

import statistics
from collections.abc import Sequence

import numpy as np

from quatrain.data.tables import PromptTable
from quatrain.jobspec.reward_section import RewardSection
from quatrain.orchestrator.job.run import JobRun
from quatrain.v1 import common_pb2, reward_pb2, rollout_pb2

PROBED = 32
REPEATS = 3
SCORE_TIMEOUT_SECONDS = 300.0


async def odd_answers(
    run: JobRun, section: RewardSection, results: Sequence[rollout_pb2.RolloutResult], median: float
) -> dict[str, float | None]:
    """Median score of empty and of repeated answers minus the SFT model's median, under a raw reward section.

    Above 0 the reward model likes them better than what the SFT model says: PPO will find that out. None where the
    tokenizer has no end of sequence to end them with, or none of them was scored.
    """
    plan, ends = run.plan, run.plan.pinned.eos_token_ids
    names = ("reward_model/empty_above_sft", "reward_model/repeated_above_sft")
    if not ends:
        return dict.fromkeys(names)
    table = await run.prompts(plan.pinned.prompts)
    end = ends[0]
    probed = results[:PROBED]
    empty = [_sample(table, result, [end]) for result in probed]
    repeated = [_sample(table, result, [*_answer(ends, result) * REPEATS, end]) for result in probed]
    medians = [await _median(run, section, samples) for samples in (empty, repeated)]
    return {name: None if value is None else value - median for name, value in zip(names, medians, strict=True)}


def _answer(eos_token_ids: Sequence[int], result: rollout_pb2.RolloutResult) -> list[int]:
    """The completion without its end of sequence."""
    ids: list[int] = np.frombuffer(result.completion_ids, dtype="<i4").tolist()
    return ids[:-1] if ids[-1] in eos_token_ids else ids


def _sample(
    table: PromptTable, result: rollout_pb2.RolloutResult, completion_ids: Sequence[int]
) -> reward_pb2.ScoreSample:
    index = result.row.prompt_index
    return reward_pb2.ScoreSample(
        prompt_ids=table.prompt_ids[index].tolist(),
        completion_ids=completion_ids,
        prompt_json=table.prompt_json[index],
        finish_reason=common_pb2.FINISH_REASON_STOP,
        extra_json=table.extra_json[index],
    )


async def _median(run: JobRun, section: RewardSection, samples: list[reward_pb2.ScoreSample]) -> float | None:
    request = reward_pb2.ScoreRequest(
        job=run.plan.job,
        samples=samples,
        reward_json=section.to_text(),
        trainer_state_json="{}",
        tokenizer=run.plan.pinned.model.to_proto(),
    )
    response = await run.patiently(lambda: run.around.services.score(request, SCORE_TIMEOUT_SECONDS))
    scores = [score.score for score in response.scores if score.outcome == reward_pb2.SampleScore.OUTCOME_SCORED]
    return statistics.median(scores) if scores else None
