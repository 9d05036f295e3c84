"""What a job's owner works from: the resolved spec and the pinned inputs, read back from `spec.json`."""

from dataclasses import dataclass
from typing import Any

from quatrain.errors import Corrupt, InvalidInput
from quatrain.jobspec.reward_section import RewardSection
from quatrain.refs import ModelRef, TableRef
from quatrain.v1 import generation_pb2


@dataclass(frozen=True)
class Plan:
    """Everything about a job that never changes."""

    job: str
    spec: dict[str, Any]
    """The resolved spec: every default written out."""
    model: ModelRef
    vocab_size: int
    eos_token_ids: tuple[int, ...]
    sft_data: TableRef | None
    reward_data: TableRef | None
    reward_held_out: TableRef | None
    prompts: TableRef
    eval_prompts: TableRef | None
    reward: RewardSection | None
    """By content; None when the model is trained in this job."""
    reward_is_local_model: bool
    """The reward is one model with the policy's tokenizer, so that the value model may start from it."""
    eval_gold: RewardSection | None
    reference: ModelRef | None
    forked_from: dict[str, Any] | None
    """Data of the event `forked`; None for a job that is no fork."""
    owner: str
    create_time: str

    @property
    def ppo(self) -> dict[str, Any]:
        """The resolved ppo section."""
        section: dict[str, Any] = self.spec["ppo"]
        return section

    @property
    def seed(self) -> int:
        """Job seed."""
        return int(self.spec["seed"])

    @property
    def dtype(self) -> str:
        """Parameter dtype of policy and value model."""
        return str(self.spec["model"]["dtype"])

    @property
    def every_steps(self) -> int:
        """Steps between checkpoints."""
        return int(self.spec["checkpoint"]["every_steps"])

    @property
    def first_version(self) -> int:
        """The policy version that the job starts from: 0, for a fork the step of its checkpoint."""
        return 0 if self.forked_from is None else int(self.forked_from["step"])

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages of this job in order."""
        stages = []
        if self.spec.get("sft") is not None:
            stages.append("sft")
        if self.reward is None:
            stages.append("reward")
        return (*stages, "ppo")

    def total_steps(self, stage: str) -> int:
        """Optimizer steps of sft and reward, PPO steps of ppo."""
        if stage == "ppo":
            return int(self.ppo["steps"])
        table = self.sft_data if stage == "sft" else self.reward_data
        assert table is not None, f"stage {stage} has no data"
        section = self.spec[stage]
        return -(-table.rows // int(section["batch_size"])) * int(section["epochs"])

    def sampling(self) -> generation_pb2.SamplingParams:
        """How rollouts are sampled."""
        section = self.ppo["generation"]
        ignore_eos = bool(section["ignore_eos"])
        return generation_pb2.SamplingParams(
            max_new_tokens=int(section["max_new_tokens"]),
            temperature=float(section["temperature"]),
            ignore_eos=ignore_eos,
            eos_token_ids=() if ignore_eos else self.eos_token_ids,
        )


def read_plan(job: str, document: dict[str, Any]) -> Plan:
    """Reads the document that submission wrote to `spec.json`. Raises Corrupt when it is not one of this version."""
    try:
        return _read_plan(job, document)
    except (KeyError, TypeError, ValueError, InvalidInput) as error:
        raise Corrupt(f"spec.json of job {job!r} is not as this version writes it: {error!r}") from error


def _read_plan(job: str, document: dict[str, Any]) -> Plan:
    pinned = document["pinned"]
    return Plan(
        job=job,
        spec=document["spec"],
        model=ModelRef.from_json(pinned["model"]),
        vocab_size=int(pinned["vocab_size"]),
        eos_token_ids=tuple(pinned["eos_token_ids"]),
        sft_data=_table(pinned["sft_data"]),
        reward_data=_table(pinned["reward_data"]),
        reward_held_out=_table(pinned["reward_held_out"]),
        prompts=TableRef.from_json(pinned["prompts"]),
        eval_prompts=_table(pinned["eval_prompts"]),
        reward=_reward(pinned["reward"]),
        reward_is_local_model=bool(pinned["reward_is_local_model"]),
        eval_gold=_reward(pinned["eval_gold"]),
        reference=None if pinned["reference"] is None else ModelRef.from_json(pinned["reference"]),
        forked_from=document.get("forked_from"),
        owner=document["owner"],
        create_time=document["create_time"],
    )


def _table(data: dict[str, Any] | None) -> TableRef | None:
    return None if data is None else TableRef.from_json(data)


def _reward(data: dict[str, Any] | None) -> RewardSection | None:
    return None if data is None else RewardSection.from_json(data)
