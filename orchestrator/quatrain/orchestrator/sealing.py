"""Turns collected results into the rows of a sealed batch: every expected sample as a rollout, a skip or a refusal."""

import json
from collections.abc import Sequence

import numpy as np
from quatrain.data.tables import PromptTable

from quatrain.batches import BatchRow
from quatrain.digests import canonical_json
from quatrain.orchestrator.plan import Plan
from quatrain.orchestrator.sampling import ExpectedBatch
from quatrain.text import Tokenizer
from quatrain.v1 import common_pb2, rollout_pb2

FINISH_NAMES = {common_pb2.FINISH_REASON_STOP: "stop", common_pb2.FINISH_REASON_LENGTH: "length"}


def batch_rows(
    plan: Plan,
    batch: ExpectedBatch,
    results: Sequence[rollout_pb2.RolloutResult],
    prompts: PromptTable,
    tokenizer: Tokenizer,
) -> list[BatchRow]:
    """Rows in the order of `batch.rows`. What came over the wire is checked: nothing unsound reaches the learner."""
    return [_row(plan, batch, result, prompts, tokenizer) for result in results]


def _row(
    plan: Plan, batch: ExpectedBatch, result: rollout_pb2.RolloutResult, prompts: PromptTable, tokenizer: Tokenizer
) -> BatchRow:
    completion_ids = np.frombuffer(result.completion_ids, dtype="<i4").astype(np.int32)
    logprobs = np.frombuffer(result.logprobs, dtype="<f4").astype(np.float32)
    ref_logprobs = np.frombuffer(result.ref_logprobs, dtype="<f4").astype(np.float32)
    outcomes = {outcome.name: outcome for outcome in result.scores}
    main = outcomes["score"]
    gold = outcomes.get("gold")
    unsound = _unsound(plan, batch, completion_ids, logprobs, ref_logprobs)
    status, reason = ("refused", unsound) if unsound else (main.status, main.reason)
    row = result.row
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
        finish_reason=FINISH_NAMES.get(result.finish_reason, ""),
        score=main.score if status == "rollout" else None,
        gold=gold.score if gold is not None and gold.HasField("score") else None,
        terms=canonical_json({t.name: t.value if t.HasField("value") else None for t in main.terms}).decode(),
        logged=main.logged_json,
        prompt=prompt_text(prompts.prompt_json[row.prompt_index], tokenizer),
        completion=tokenizer.decode(completion_ids.tolist()) if not unsound else "",
        extra=prompts.extra_json[row.prompt_index],
    )


def prompt_text(prompt_json: str, tokenizer: Tokenizer) -> str:
    """A string prompt as it is; messages as the chat template renders them."""
    prompt = json.loads(prompt_json)
    return prompt if isinstance(prompt, str) else tokenizer.render(prompt, add_generation_prompt=True)


def _unsound(
    plan: Plan, batch: ExpectedBatch, completion_ids: np.ndarray, logprobs: np.ndarray, ref_logprobs: np.ndarray
) -> str:
    """Why a sample cannot be trained on; empty when it can."""
    length = len(completion_ids)
    if length == 0 or length > int(plan.ppo["generation"]["max_new_tokens"]):
        return f"completion of {length} tokens"
    if completion_ids.min() < 0 or completion_ids.max() >= plan.vocab_size:
        return f"token outside the vocabulary of {plan.vocab_size}"
    if len(logprobs) != length or not np.isfinite(logprobs).all():
        return "sampler logprobs are missing or not finite"
    if batch.reference is not None and (len(ref_logprobs) != length or not np.isfinite(ref_logprobs).all()):
        return "reference logprobs are missing or not finite"
    return ""
