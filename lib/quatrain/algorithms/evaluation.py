"""Metrics of an evaluation step: the policy against the SFT model, paired by prompt. No torch."""

from collections.abc import Sequence

from quatrain.algorithms.statistics import mean, standard_error


def evaluation_metrics(
    scores: Sequence[float],
    sft_scores: Sequence[float] | None = None,
    gold: Sequence[float] | None = None,
    sft_gold: Sequence[float] | None = None,
) -> dict[str, float | None]:
    """Return `eval/*`; every list holds one number for each held-out prompt, in the same order.

    `eval/gold_se` is the standard error of the mean paired difference: what prompts have in common cancels.
    `eval/win_rate` is the share of prompts at which the policy beats the SFT model, a tie counting half, by the gold
    score if there is one, else by the training score.
    """
    paired = _differences(gold, sft_gold)
    contest = paired if paired is not None else _differences(scores, sft_scores)
    return {
        "eval/score_mean": mean(scores),
        "eval/gold_mean": mean(gold) if gold is not None else None,
        "eval/gold_se": standard_error(paired) if paired is not None else None,
        "eval/win_rate": mean([_point(difference) for difference in contest]) if contest is not None else None,
    }


def _differences(policy: Sequence[float] | None, sft: Sequence[float] | None) -> list[float] | None:
    if policy is None or sft is None:
        return None
    return [ours - theirs for ours, theirs in zip(policy, sft, strict=True)]


def _point(difference: float) -> float:
    return 1.0 if difference > 0 else 0.5 if difference == 0 else 0.0
