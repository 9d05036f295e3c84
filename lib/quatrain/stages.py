"""The stages of a job, in their order. This table holds what differs between them by a word or a switch.

The code of a stage is in `quatrain.orchestrator.stages` (its loop), `quatrain.learner.backends` (its trainer) and
`quatrain.jobspec.sections` (its section of the spec, which has the stage's name).
"""

from dataclasses import dataclass

from quatrain.errors import InvalidInput
from quatrain.v1 import learner_pb2


@dataclass(frozen=True)
class Stage:
    """One kind of training."""

    name: str
    """The name in the spec, in object keys, events and metrics."""
    proto: "learner_pb2.Stage"
    result: str
    """The name by which clients ask for the stage's model; the Job message may have a field of it."""
    title: str
    """The title of the model on its card."""
    pipeline: str
    """The kind of the model, as `transformers` calls it."""
    uses_rollouts: bool = False
    """Whether each step trains on a sealed batch of rollouts and makes the policy version of its number."""
    makes_reward_model: bool = False
    """Whether the model scores and is no policy. Using it during the stage takes its tokenizer beside it."""

    def __str__(self) -> str:
        return self.name


SFT = Stage(
    name="sft",
    proto=learner_pb2.STAGE_SFT,
    result="sft_model",
    title="supervised fine-tuned model",
    pipeline="text-generation",
)
REWARD = Stage(
    name="reward",
    proto=learner_pb2.STAGE_REWARD,
    result="reward_model",
    title="reward model",
    pipeline="text-classification",
    makes_reward_model=True,
)
PPO = Stage(
    name="ppo",
    proto=learner_pb2.STAGE_PPO,
    result="model",
    title="policy trained with PPO",
    pipeline="text-generation",
    uses_rollouts=True,
)

STAGES = (SFT, REWARD, PPO)
POLICY_STAGE = next(stage for stage in STAGES if stage.uses_rollouts)
"""The stage that has policy versions, rollouts and evaluations."""


def stage_named(name: str) -> Stage:
    """Return the stage of this name. Raises InvalidInput."""
    for stage in STAGES:
        if stage.name == name:
            return stage
    raise InvalidInput(f"there is no stage {name!r}: the stages are {', '.join(map(str, STAGES))}")


def stage_of_proto(number: int) -> Stage:
    """Return the stage of a message. Raises InvalidInput."""
    for stage in STAGES:
        if stage.proto == number:
            return stage
    raise InvalidInput(f"stage {number} is none of {', '.join(map(str, STAGES))}")
