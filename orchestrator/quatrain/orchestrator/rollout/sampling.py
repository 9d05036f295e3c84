"""Which samples a step expects, and the tasks that make them. Pure functions of the plan.

A step may have tens of thousands of samples: what makes all of them at once belongs into a thread.
"""

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from quatrain.algorithms.permutation import permutation
from quatrain.digests import canonical_json, rollout_id, sample_seed
from quatrain.jobspec.reward_section import RewardSection
from quatrain.orchestrator.peers.service_clients import Sampling
from quatrain.orchestrator.plan import Plan
from quatrain.orchestrator.rollout.samples import ExpectedSample, Purpose, RolloutTask, Scoring
from quatrain.refs import ModelRef, ObjectRef, TableRef
from quatrain.stages import POLICY_STAGE


@dataclass(frozen=True)
class TrainerState:
    """What reward functions may know about the training; step 0 is before the first one."""

    job: str = ""
    step: int = 0
    total_steps: int = 0

    def to_text(self) -> str:
        """Return it as JSON."""
        state = {"job": self.job, "step": self.step, "total_steps": self.total_steps}
        return canonical_json(state).decode()


@dataclass(frozen=True)
class ExpectedBatch:
    """The samples of one step, evaluation or offset measurement, in (prompt, sample) order, and how to make them."""

    purpose: Purpose
    step: int
    samples: tuple[ExpectedSample, ...]
    policy: ModelRef
    policy_version: int
    prompts: TableRef
    scorings: tuple[Scoring, ...]
    reference: ModelRef | None
    trainer_state: TrainerState = field(default_factory=TrainerState)

    @property
    def key(self) -> tuple[Purpose, int]:
        """Return what tells this batch from the others of the job."""
        return self.purpose, self.step

    def chunks(self, size: int) -> int:
        """Return how many chunks of `size` samples the batch has; the last one may be smaller."""
        return -(-len(self.samples) // size)


def rollout_samples(plan: Plan, step: int) -> tuple[ExpectedSample, ...]:
    """Return the samples of a PPO step: the next prompts of a seeded order, reshuffled at each pass over the prompts.

    A prompt that a step meets twice (fewer prompts than the step needs) continues its sample indices.
    """
    ppo = plan.spec.ppo
    prompts = _next_prompts(plan, (step - 1) * ppo.prompts_per_step, ppo.prompts_per_step)
    return _samples(plan, "rollout", step, prompts, ppo.samples_per_prompt)


def eval_samples(plan: Plan) -> tuple[ExpectedSample, ...]:
    """Return one sample for each held-out prompt; the seeds are the same at every evaluation, so that they pair."""
    assert plan.pinned.eval_prompts is not None, "no evaluation without eval_prompts"
    return _samples(plan, "eval", 0, range(plan.pinned.eval_prompts.rows), 1)


def offset_samples(plan: Plan) -> tuple[ExpectedSample, ...]:
    """Return the samples of the SFT model on training prompts that centre the reward model."""
    return _samples(plan, "offset", 0, _next_prompts(plan, 0, plan.spec.reward.center_samples), 1)


def _next_prompts(plan: Plan, start: int, count: int) -> list[int]:
    """Return the prompt indices at the positions from `start` on of the endless order."""
    rows = plan.pinned.prompts.rows
    found: list[int] = []
    while len(found) < count:
        passes, place = divmod(start + len(found), rows)
        found += _order(plan.seed, passes, rows)[place : place + count - len(found)]
    return found


_ORDERS: dict[tuple[int, int, int], list[int]] = {}
"""The last few shuffled orders: one step goes on in the order of the step before."""


def _order(seed: int, passes: int, count: int) -> list[int]:
    key = (seed, passes, count)
    order = _ORDERS.get(key)
    if order is None:
        order = permutation(count, "prompts", seed, passes)
        # A copy is changed and not the dict itself: several threads may be here.
        kept = dict(list(_ORDERS.items())[-7:])
        kept[key] = order
        _ORDERS.clear()
        _ORDERS.update(kept)
    return order


def _samples(
    plan: Plan, purpose: Purpose, step: int, prompts: Sequence[int], samples: int
) -> tuple[ExpectedSample, ...]:
    met: Counter[int] = Counter()
    pairs: list[tuple[int, int]] = []
    for prompt in prompts:
        pairs.extend((prompt, met[prompt] + sample) for sample in range(samples))
        met[prompt] += samples
    stage = POLICY_STAGE.name if purpose == "rollout" else purpose
    return tuple(
        ExpectedSample(
            rollout_id=rollout_id(plan.job, purpose, step, prompt, sample),
            prompt_index=prompt,
            sample_index=sample,
            seed=sample_seed(plan.seed, stage, step, prompt, sample),
        )
        for prompt, sample in sorted(pairs)
    )


def trainer_state(plan: Plan, step: int) -> TrainerState:
    """Return what reward functions may know at a step."""
    return TrainerState(plan.job, step, plan.spec.ppo.steps)


def scoring(name: str, reward: RewardSection, missing_eos_penalty: float) -> Scoring:
    """Return one way to score the samples of a batch."""
    return Scoring(name, reward.to_text(), missing_eos_penalty)


def sampling_params(plan: Plan) -> Sampling:
    """Return how rollouts are sampled."""
    section = plan.spec.ppo.generation
    return Sampling(
        max_new_tokens=section.max_new_tokens,
        temperature=section.temperature,
        ignore_eos=section.ignore_eos,
        eos_token_ids=() if section.ignore_eos else plan.pinned.eos_token_ids,
    )


def make_task(plan: Plan, batch: ExpectedBatch, epoch: int, chunk: int, deadline: float) -> RolloutTask:
    """Return the task for one chunk: a run of `chunk_size` samples.

    Results depend on how a batch is cut, so the cut is fixed by the spec alone.
    """
    size, prompts = plan.spec.ppo.chunk_size, batch.prompts
    return RolloutTask(
        job=plan.job,
        purpose=batch.purpose,
        step=batch.step,
        chunk=chunk,
        epoch=epoch,
        nonce=uuid.uuid4().hex,
        policy=batch.policy.at_version(batch.policy_version),
        sampling=sampling_params(plan),
        dtype=plan.dtype,
        prompts=ObjectRef(prompts.key, prompts.sha256, prompts.size),
        samples=batch.samples[chunk * size : (chunk + 1) * size],
        reference=batch.reference,
        scorings=batch.scorings,
        trainer_state_json=batch.trainer_state.to_text(),
        tokenizer=plan.pinned.model,
        deadline_seconds=deadline,
    )
