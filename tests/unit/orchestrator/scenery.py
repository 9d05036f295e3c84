"""A small plan and results for the orchestrator's tests."""

from dataclasses import replace
from typing import Any

import numpy as np

from quatrain.jobspec import parse_spec, resolved_document
from quatrain.jobspec.reward_section import RewardSection
from quatrain.orchestrator.plan import Plan, read_plan
from quatrain.orchestrator.rollout.samples import ExpectedSample, Made, RolloutTask
from quatrain.orchestrator.rollout.sampling import ExpectedBatch, rollout_samples, scoring
from quatrain.orchestrator.rollout.wire import decode_result
from quatrain.refs import ModelRef, TableRef
from quatrain.v1 import common_pb2, rollout_pb2

DIGEST = "d" * 64

PURPOSES = {
    "rollout": rollout_pb2.PURPOSE_ROLLOUT,
    "eval": rollout_pb2.PURPOSE_EVAL,
    "offset": rollout_pb2.PURPOSE_OFFSET,
}


def make_plan(job: str = "job-1", prompts: int = 10, owner: str = "local", **ppo: Any) -> Plan:
    document = {
        "name": "small",
        "model": {"uri": f"sha256:{DIGEST}", "dtype": "float32"},
        "reward": {"functions": [{"path": "rewards:count"}]},
        "ppo": {"prompts": f"sha256:{DIGEST}", "steps": 5, "prompts_per_step": 6, "chunk_size": 4, **ppo},
    }
    table = {"key": "data/p", "sha256": DIGEST, "size": 1, "rows": prompts}
    return read_plan(
        job,
        {
            "spec": resolved_document(parse_spec(document)),
            "request": document,
            "fingerprint": "f",
            "owner": owner,
            "create_time": "2026-01-01T00:00:00+00:00",
            "pinned": {
                "model": {"uri": f"sha256:{DIGEST}", "digest": DIGEST},
                "vocab_size": 8,
                "eos_token_ids": [1],
                "sft_data": None,
                "reward_data": None,
                "reward_held_out": None,
                "prompts": table,
                "eval_prompts": None,
                "reward": {"functions": [{"path": "rewards:count"}]},
                "reward_is_local_model": False,
                "eval_gold": None,
                "reference": None,
            },
        },
    )


def with_pinned(plan: Plan, **pinned: Any) -> Plan:
    """The plan with other contents of what its spec names."""
    document = plan.document.model_copy(update={"pinned": plan.pinned.model_copy(update=pinned)})
    return replace(plan, document=document)


def expected(plan: Plan, step: int = 1, version: int = 0) -> ExpectedBatch:
    return ExpectedBatch(
        purpose="rollout",
        step=step,
        samples=rollout_samples(plan, step),
        policy=ModelRef("store:p", DIGEST),
        policy_version=version,
        prompts=TableRef("data/p", DIGEST, 1, 10),
        scorings=(scoring("score", RewardSection(), 0.0),),
        reference=plan.pinned.model,
    )


def result_of(batch: ExpectedBatch, sample: ExpectedSample, chunk: int, **changes: Any) -> rollout_pb2.RolloutResult:
    """What a worker may send, sound or not."""
    ids = np.array([2, 3, 1], dtype="<i4")
    fields: dict[str, Any] = {
        "job": "job-1",
        "purpose": PURPOSES[batch.purpose],
        "step": batch.step,
        "chunk": chunk,
        "row": rollout_pb2.TaskRow(
            rollout_id=sample.rollout_id,
            prompt_index=sample.prompt_index,
            sample_index=sample.sample_index,
            seed=sample.seed,
        ),
        "policy": batch.policy.at_version(batch.policy_version).to_proto(),
        "completion_ids": ids.tobytes(),
        "logprobs": np.full(3, -0.5, dtype="<f4").tobytes(),
        "ref_logprobs": np.full(3, -0.6, dtype="<f4").tobytes(),
        "finish_reason": common_pb2.FINISH_REASON_STOP,
        "scores": [rollout_pb2.ScoreOutcome(name="score", status="rollout", score=1.5)],
        "generate_seconds": 0.5,
    }
    return rollout_pb2.RolloutResult(**(fields | changes))


def made_of(batch: ExpectedBatch, sample: ExpectedSample, chunk: int, **changes: Any) -> Made:
    """The same as the owner reads it."""
    made = decode_result(result_of(batch, sample, chunk, **changes).SerializeToString())
    assert isinstance(made, Made)
    return made


def results_of(task: RolloutTask, batch: ExpectedBatch) -> list[bytes]:
    return [result_of(batch, sample, task.chunk).SerializeToString() for sample in task.samples]
