"""Turns collected results into the rows of a sealed batch: every expected sample as a rollout, a skip or a refusal."""

import json
import math
from collections.abc import Sequence

import numpy as np

from quatrain.batches import BatchRow
from quatrain.data.tables import PromptTable
from quatrain.digests import canonical_json
from quatrain.orchestrator.plan import Plan
from quatrain.orchestrator.rollout.sampling import ExpectedBatch
from quatrain.text import Tokenizer
from quatrain.v1 import common_pb2, rollout_pb2

FINISH_NAMES = {common_pb2.FINISH_REASON_STOP: "stop", common_pb2.FINISH_REASON_LENGTH: "length"}


STATUSES = ("rollout", "skipped", "refused")


def batch_rows(
    plan: Plan,
    batch: ExpectedBatch,
    results: Sequence[rollout_pb2.RolloutResult],
    prompts: PromptTable,
    tokenizer: Tokenizer,
) -> list[BatchRow]:
    """Rows in the order of `batch.rows`. What came over the wire is checked: nothing unsound reaches the learner."""
    return [_row(plan, batch, row, result, prompts, tokenizer) for row, result in zip(batch.rows, results, strict=True)]


def _row(
    plan: Plan,
    batch: ExpectedBatch,
    row: rollout_pb2.TaskRow,
    result: rollout_pb2.RolloutResult,
    prompts: PromptTable,
    tokenizer: Tokenizer,
) -> BatchRow:
    completion_ids = _numbers(result.completion_ids, "<i4").astype(np.int32)
    logprobs = _numbers(result.logprobs, "<f4").astype(np.float32)
    ref_logprobs = _numbers(result.ref_logprobs, "<f4").astype(np.float32)
    outcomes = {outcome.name: outcome for outcome in result.scores}
    main = outcomes.get("score", rollout_pb2.ScoreOutcome())
    gold = outcomes.get("gold")
    finish_reason = FINISH_NAMES.get(result.finish_reason, "")
    unsound = _unsound(plan, batch, completion_ids, logprobs, ref_logprobs) or _unscored(main, finish_reason)
    status, reason = ("refused", unsound) if unsound else (main.status, main.reason)
    gold_score = gold.score if gold is not None and gold.HasField("score") and math.isfinite(gold.score) else None
    return BatchRow(
        rollout_id=row.rollout_id,
        prompt_index=row.prompt_index,
        sample_index=row.sample_index,
        seed=row.seed,
        policy_version=batch.policy_version,
        policy_digest=batch.policy.digest,
        status=status,
        reason=reason,
        prompt_ids=prompts.prompt_ids[row.prompt_index],
        completion_ids=completion_ids,
        logprobs=logprobs,
        ref_logprobs=ref_logprobs,
        finish_reason=finish_reason,
        score=main.score if status == "rollout" else None,
        gold=gold_score,
        terms=canonical_json({term.name: _finite(term) for term in main.terms}).decode(),
        logged=main.logged_json,
        prompt=prompt_text(prompts.prompt_json[row.prompt_index], tokenizer),
        completion=tokenizer.decode(completion_ids.tolist()) if not unsound else "",
        extra=prompts.extra_json[row.prompt_index],
    )


def _numbers(data: bytes, dtype: str) -> np.ndarray:
    """The numbers of a field; none when its bytes are not whole numbers, which makes the sample unsound."""
    return np.frombuffer(data if len(data) % 4 == 0 else b"", dtype=dtype)


def _finite(term: common_pb2.NamedValue) -> float | None:
    return term.value if term.HasField("value") and math.isfinite(term.value) else None


def _unscored(outcome: rollout_pb2.ScoreOutcome, finish_reason: str) -> str:
    """Why a sound completion has no usable score; empty when it has, or was skipped or refused by the reward."""
    if not finish_reason:
        return "the finish reason is missing"
    if outcome.status not in STATUSES:
        return "the score is missing"
    if outcome.status == "rollout" and not (outcome.HasField("score") and math.isfinite(outcome.score)):
        return f"the score is {outcome.score if outcome.HasField('score') else 'missing'}"
    return ""


def prompt_text(prompt_json: str, tokenizer: Tokenizer) -> str:
    """A string prompt as it is; messages as the chat template renders them."""
    prompt = json.loads(prompt_json)
    return prompt if isinstance(prompt, str) else tokenizer.render(prompt, add_generation_prompt=True)


def _unsound(
    plan: Plan, batch: ExpectedBatch, completion_ids: np.ndarray, logprobs: np.ndarray, ref_logprobs: np.ndarray
) -> str:
    """Why a sample cannot be trained on; empty when it can."""
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
