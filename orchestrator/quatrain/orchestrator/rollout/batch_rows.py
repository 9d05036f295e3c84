"""Turns collected results into the rows of a sealed batch: every expected sample as a rollout, a skip or a refusal."""

import json
import math
from collections.abc import Sequence

import numpy as np

from quatrain.batches import BatchRow
from quatrain.data.tables import PromptTable
from quatrain.digests import canonical_json
from quatrain.orchestrator.peers.service_clients import FinishReason
from quatrain.orchestrator.plan import Plan
from quatrain.orchestrator.rollout.samples import ExpectedSample, Made, Rollout, ScoreOutcome
from quatrain.orchestrator.rollout.sampling import ExpectedBatch
from quatrain.text import Tokenizer


def batch_rows(
    plan: Plan,
    batch: ExpectedBatch,
    made: Sequence[Made],
    prompts: PromptTable,
    tokenizer: Tokenizer,
) -> list[BatchRow]:
    """Return a row for each sample of the batch, in its order.

    What came over the wire is checked: nothing unsound reaches the learner.
    """
    return [
        _row(plan, batch, sample, each.rollout, prompts, tokenizer)
        for sample, each in zip(batch.samples, made, strict=True)
    ]


def _row(
    plan: Plan,
    batch: ExpectedBatch,
    sample: ExpectedSample,
    rollout: Rollout,
    prompts: PromptTable,
    tokenizer: Tokenizer,
) -> BatchRow:
    main = rollout.scored("score") or ScoreOutcome("score", "")
    unsound = _unsound(plan, batch, rollout) or _unscored(main, rollout.finish_reason)
    status, reason = ("refused", unsound) if unsound else (main.outcome, main.reason)
    return BatchRow(
        rollout_id=sample.rollout_id,
        prompt_index=sample.prompt_index,
        sample_index=sample.sample_index,
        seed=sample.seed,
        policy_version=batch.policy_version,
        policy_digest=batch.policy.digest,
        status=status,
        reason=reason,
        prompt_ids=prompts.prompt_ids[sample.prompt_index],
        completion_ids=rollout.completion_ids,
        logprobs=rollout.logprobs,
        ref_logprobs=rollout.ref_logprobs,
        finish_reason=rollout.finish_reason,
        score=main.score if status == "rollout" else None,
        gold=_finite(gold.score) if (gold := rollout.scored("gold")) is not None else None,
        terms=canonical_json({name: _finite(value) for name, value in main.terms}).decode(),
        logged=main.logged_json,
        prompt=prompt_text(prompts.prompt_json[sample.prompt_index], tokenizer),
        completion=tokenizer.decode(rollout.completion_ids.tolist()) if not unsound else "",
        extra=prompts.extra_json[sample.prompt_index],
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _unscored(outcome: ScoreOutcome, finish_reason: FinishReason) -> str:
    """Return why a sound completion has no usable score; empty when it has one, or the reward skipped or refused it."""
    if not finish_reason:
        return "the finish reason is missing"
    if not outcome.outcome:
        return "the score is missing"
    if outcome.outcome == "rollout" and _finite(outcome.score) is None:
        return f"the score is {'missing' if outcome.score is None else outcome.score}"
    return ""


def prompt_text(prompt_json: str, tokenizer: Tokenizer) -> str:
    """Return a string prompt as it is, messages as the chat template renders them."""
    prompt = json.loads(prompt_json)
    return prompt if isinstance(prompt, str) else tokenizer.render(prompt, add_generation_prompt=True)


def _unsound(plan: Plan, batch: ExpectedBatch, rollout: Rollout) -> str:
    """Return why a sample cannot be trained on; empty when it can."""
    completion_ids, logprobs, ref_logprobs = rollout.completion_ids, rollout.logprobs, rollout.ref_logprobs
    length = len(completion_ids)
    if length == 0 or length > plan.spec.ppo.generation.max_new_tokens:
        return f"completion of {length} tokens"
    if completion_ids.min() < 0 or completion_ids.max() >= plan.pinned.vocab_size:
        return f"token outside the vocabulary of {plan.pinned.vocab_size}"
    if len(logprobs) != length or not np.isfinite(logprobs).all():
        return "sampler logprobs are missing or not finite"
    if batch.reference is not None and (len(ref_logprobs) != length or not np.isfinite(ref_logprobs).all()):
        return "reference logprobs are missing or not finite"
    return ""
