"""Which samples a step expects, and the tasks that make them. Pure functions of the plan."""

import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from quatrain.algorithms.permutation import permutation
from quatrain.digests import canonical_json, rollout_id, sample_seed
from quatrain.jobspec.reward_section import RewardSection
from quatrain.orchestrator.plan import Plan
from quatrain.refs import ModelRef, TableRef
from quatrain.stages import POLICY_STAGE
from quatrain.v1 import generation_pb2, rollout_pb2

PURPOSES = {
    "rollout": rollout_pb2.PURPOSE_ROLLOUT,
    "eval": rollout_pb2.PURPOSE_EVAL,
    "offset": rollout_pb2.PURPOSE_OFFSET,
}
PURPOSE_NAMES = {value: name for name, value in PURPOSES.items()}
OFFSET_SAMPLES = 512
"""Completions that the reward model's offset is the mean score of (algorithms: at least 512)."""


@dataclass(frozen=True)
class ExpectedBatch:
    """The samples of one step, evaluation or offset measurement, in (prompt, sample) order, and how to make them."""

    purpose: str
    step: int
    rows: tuple[rollout_pb2.TaskRow, ...]
    policy: ModelRef
    policy_version: int
    prompts: TableRef
    scorings: tuple[rollout_pb2.Scoring, ...]
    reference: ModelRef | None
    trainer_state: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, int]:
        """What tells this batch from the others of the job."""
        return self.purpose, self.step


def rollout_rows(plan: Plan, step: int) -> tuple[rollout_pb2.TaskRow, ...]:
    """Samples of a PPO step: the next prompts of a seeded order that is reshuffled at each pass over the prompts.

    A prompt that a step meets twice (fewer prompts than the step needs) continues its sample indices.
    """
    wanted = plan.spec.ppo.prompts_per_step
    start = (step - 1) * wanted
    prompts = [_nth_prompt(plan.seed, position, plan.pinned.prompts.rows) for position in range(start, start + wanted)]
    return _rows(plan, "rollout", step, prompts, plan.spec.ppo.samples_per_prompt)


def eval_rows(plan: Plan) -> tuple[rollout_pb2.TaskRow, ...]:
    """One sample for each held-out prompt; the seeds are the same at every evaluation, so that they pair."""
    assert plan.pinned.eval_prompts is not None, "no evaluation without eval_prompts"
    return _rows(plan, "eval", 0, list(range(plan.pinned.eval_prompts.rows)), 1)


def offset_rows(plan: Plan) -> tuple[rollout_pb2.TaskRow, ...]:
    """Samples of the SFT model on training prompts that centre the reward model."""
    prompts = [_nth_prompt(plan.seed, position, plan.pinned.prompts.rows) for position in range(OFFSET_SAMPLES)]
    return _rows(plan, "offset", 0, prompts, 1)


def _nth_prompt(seed: int, position: int, count: int) -> int:
    passes, place = divmod(position, count)
    return _order(seed, passes, count)[place]


_ORDERS: dict[tuple[int, int, int], list[int]] = {}
"""The last few shuffled orders: a step asks for many neighbouring positions of one."""


def _order(seed: int, passes: int, count: int) -> list[int]:
    key = (seed, passes, count)
    if key not in _ORDERS:
        order = permutation(count, "prompts", seed, passes)
        while len(_ORDERS) >= 8:
            _ORDERS.pop(next(iter(_ORDERS)))
        _ORDERS[key] = order
    return _ORDERS[key]


def _rows(plan: Plan, purpose: str, step: int, prompts: Sequence[int], samples: int) -> tuple[rollout_pb2.TaskRow, ...]:
    met: Counter[int] = Counter()
    pairs: list[tuple[int, int]] = []
    for prompt in prompts:
        pairs.extend((prompt, met[prompt] + sample) for sample in range(samples))
        met[prompt] += samples
    stage = POLICY_STAGE.name if purpose == "rollout" else purpose
    return tuple(
        rollout_pb2.TaskRow(
            rollout_id=rollout_id(plan.job, purpose, step, prompt, sample),
            prompt_index=prompt,
            sample_index=sample,
            seed=sample_seed(plan.seed, stage, step, prompt, sample),
        )
        for prompt, sample in sorted(pairs)
    )


def trainer_state(plan: Plan, step: int) -> dict[str, Any]:
    """What reward functions may know about the training; 0 is before the first step."""
    return {"job": plan.job, "step": step, "total_steps": plan.spec.ppo.steps}


def scoring(name: str, reward: RewardSection, missing_eos_penalty: float) -> rollout_pb2.Scoring:
    """One way to score the samples of a batch."""
    return rollout_pb2.Scoring(name=name, reward_json=reward.to_text(), missing_eos_penalty=missing_eos_penalty)


def sampling_params(plan: Plan) -> generation_pb2.SamplingParams:
    """How rollouts are sampled."""
    section = plan.spec.ppo.generation
    return generation_pb2.SamplingParams(
        max_new_tokens=section.max_new_tokens,
        temperature=section.temperature,
        ignore_eos=section.ignore_eos,
        eos_token_ids=() if section.ignore_eos else plan.pinned.eos_token_ids,
    )


def chunks(plan: Plan, batch: ExpectedBatch) -> list[tuple[rollout_pb2.TaskRow, ...]]:
    """The batch cut into runs of `chunk_size` rows: results depend on the cut, so it is fixed by the spec alone."""
    size = plan.spec.ppo.chunk_size
    return [batch.rows[start : start + size] for start in range(0, len(batch.rows), size)]


def make_tasks(
    plan: Plan, batch: ExpectedBatch, epoch: int, missing: Iterable[int], deadline: float
) -> list[rollout_pb2.RolloutTask]:
    """Tasks for the chunks whose numbers are in `missing`."""
    cut = chunks(plan, batch)
    reference = None if batch.reference is None else batch.reference.to_proto()
    return [
        rollout_pb2.RolloutTask(
            job=plan.job,
            purpose=PURPOSES[batch.purpose],
            step=batch.step,
            chunk=number,
            epoch=epoch,
            nonce=uuid.uuid4().hex,
            policy=batch.policy.at_version(batch.policy_version).to_proto(),
            sampling=sampling_params(plan),
            dtype=plan.dtype,
            prompts=batch.prompts.to_proto(),
            rows=cut[number],
            reference=reference,
            scorings=batch.scorings,
            trainer_state_json=canonical_json(batch.trainer_state).decode(),
            tokenizer=plan.pinned.model.to_proto(),
            deadline_seconds=deadline,
        )
        for number in sorted(missing)
    ]
