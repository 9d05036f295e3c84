"""The plan of a job: everything about it that never changes, read from its `spec.json`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from pydantic import Field, ValidationError

from quatrain.errors import Corrupt, InvalidInput
from quatrain.joblog.payloads import Forked
from quatrain.jobspec import JobSpec
from quatrain.jobspec.reward_section import RewardSection
from quatrain.jobspec.stored_spec import open_spec
from quatrain.json_values import JsonObject
from quatrain.refs import TableRef
from quatrain.stages import REWARD, SFT, STAGES, Stage
from quatrain.stored import Stored, StoredModel, StoredTable

Rank = tuple[int, str, str]
"""The order of waiting jobs, lowest first: minus priority, time of creation, id."""


class RowsSection(Protocol):
    """The section of a stage that trains on rows, as far as every such stage has it."""

    @property
    def batch_size(self) -> int:
        """Return the rows of an optimizer step."""
        ...

    @property
    def epochs(self) -> int:
        """Return the passes over the rows."""
        ...

    @property
    def microbatch_tokens(self) -> int:
        """Return the padded tokens of a microbatch."""
        ...


@dataclass(frozen=True)
class StageRows:
    """The prepared rows of a stage that trains on rows."""

    train: TableRef
    held_out: TableRef | None = None


class Pinned(Stored):
    """What the spec names, by content."""

    model: StoredModel
    """The base model; its tokenizer is the policy's."""
    tokenizer_digest: str = ""
    vocab_size: int
    eos_token_ids: tuple[int, ...]
    sft_data: StoredTable | None = None
    prompts: StoredTable
    eval_prompts: StoredTable | None = None
    reference: StoredModel | None = None
    reward: RewardSection | None = None
    """None when the reward model is trained in this job."""
    reward_data: StoredTable | None = None
    reward_held_out: StoredTable | None = None
    reward_is_local_model: bool = False
    """Whether the reward is one model with the policy's tokenizer, so that the value model may start from it."""
    eval_gold: RewardSection | None = None
    origins: dict[str, str] = Field(default_factory=dict)
    """By field of the spec, the exact name of what came from the Hub (with its commit), or was merged."""

    @property
    def rows(self) -> Mapping[Stage, StageRows]:
        """Return the rows of each stage that trains on rows. A stage that the job does not run has none."""
        train = {SFT: self.sft_data, REWARD: self.reward_data}
        held_out = {REWARD: self.reward_held_out}
        return {stage: StageRows(table, held_out.get(stage)) for stage, table in train.items() if table is not None}

    @property
    def tables(self) -> Mapping[str, TableRef | None]:
        """Return every prepared table by its name on model cards; None where the job has none."""
        return {
            "sft": self.sft_data,
            "reward": self.reward_data,
            "reward_held_out": self.reward_held_out,
            "prompts": self.prompts,
            "eval_prompts": self.eval_prompts,
        }


class JobDocument(Stored):
    """`spec.json` of a job. The two specs are kept as they were written, whatever version opens them."""

    spec: dict[str, object]
    """The resolved spec: every default written out."""
    request: dict[str, object]
    """The spec as it was asked for."""
    pinned: Pinned
    warnings: tuple[str, ...] = ()
    fingerprint: str
    """Digest of the request: the same request twice is one job."""
    owner: str
    create_time: str
    forked_from: Forked | None = None
    """What the event `forked` will say; None for a job that is no fork."""

    def to_json(self) -> JsonObject:
        """Return the JSON form; a job that is no fork has no `forked_from`."""
        document = super().to_json()
        if self.forked_from is None:
            del document["forked_from"]
        return document


@dataclass(frozen=True)
class Plan:
    """A job as it was accepted."""

    job: str
    document: JobDocument
    spec: JobSpec
    """The resolved spec."""

    @staticmethod
    def of(job: str, document: JobDocument) -> "Plan":
        """Return the plan of a job with this document. Raises Corrupt."""
        return Plan(job, document, open_spec(document.spec))

    @property
    def pinned(self) -> Pinned:
        """Return what the spec names, by content."""
        return self.document.pinned

    @property
    def forked_from(self) -> Forked | None:
        """Return what a fork takes over of its source; None for a job that is no fork."""
        return self.document.forked_from

    @property
    def rank(self) -> Rank:
        """Return the job's rank among those that wait."""
        return (-self.spec.priority, self.document.create_time, self.job)

    @property
    def seed(self) -> int:
        """Return the seed of everything that is drawn for the job."""
        return self.spec.seed

    @property
    def dtype(self) -> str:
        """Return the parameter dtype of policy and value model."""
        assert self.spec.model.dtype is not None, "a resolved spec has it"
        return self.spec.model.dtype

    @property
    def first_version(self) -> int:
        """Return the policy version that the job starts from: 0, for a fork the step of its checkpoint."""
        return 0 if self.forked_from is None else self.forked_from.step

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Return the stages of this job in order."""
        return tuple(stage for stage in STAGES if stage.uses_rollouts or stage in self.pinned.rows)

    def total_steps(self, stage: Stage) -> int:
        """Return the PPO steps of a stage that uses rollouts, the optimizer steps of others."""
        if stage.uses_rollouts:
            return self.spec.ppo.steps
        section = self.rows_section(stage)
        return -(-self.pinned.rows[stage].train.rows // section.batch_size) * section.epochs

    def rows_section(self, stage: Stage) -> RowsSection:
        """Return the section of a stage that trains on prepared rows."""
        section: RowsSection = getattr(self.spec, stage.name)
        return section

    def section_json(self, stage: Stage) -> object:
        """Return the stage's resolved section of the spec as it is stored."""
        return self.document.spec[stage.name]

    @cached_property
    def texts(self) -> str:
        """Return the whole document as text, in which every object of the store that it names can be found."""
        return json.dumps(self.document.to_json())


def read_plan(job: str, document: Mapping[str, object]) -> Plan:
    """Return the plan that submission wrote to `spec.json`. Raises Corrupt when it is not one."""
    try:
        return Plan.of(job, JobDocument.model_validate(document))
    except (ValidationError, KeyError, TypeError, InvalidInput) as error:
        raise Corrupt(f"spec.json of job {job!r} is not as this version writes it: {error}") from error
