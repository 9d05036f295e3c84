"""Pins of a fork: what its source has pinned and the fork has not changed is taken over, not read again."""

from dataclasses import dataclass, field

from typing_extensions import override

from quatrain.jobspec import DataSpec, JobSpec, PpoSpec, RewardSpec, SftSpec
from quatrain.jobspec.reward_section import RewardSection
from quatrain.orchestrator.plan import Plan, StageRows
from quatrain.orchestrator.submission.fork_spec import same_reward
from quatrain.orchestrator.submission.models import PinnedModel
from quatrain.orchestrator.submission.submit import PinnedReward, Submitter, Trial
from quatrain.orchestrator.submission.tables import DataPinner, PairsSection
from quatrain.refs import TableRef
from quatrain.stages import REWARD, Stage

PROMPTS = "ppo.prompts"
TABLE_FIELDS = ("max_prompt_length", "truncate_prompt")


@dataclass
class _ForkData(DataPinner):
    """A pinner that takes over the tables of `source`."""

    source: Plan = field(kw_only=True)

    @override
    async def completions(self, stage: Stage, section: SftSpec) -> StageRows:
        return self.source.pinned.rows[stage]  # A fork cannot change them.

    @override
    async def pairs(self, stage: Stage, section: PairsSection, seed: int) -> StageRows:
        return self.source.pinned.rows[stage]

    @override
    async def prompts(self, name: str, data: DataSpec, ppo: PpoSpec) -> TableRef:
        pinned, old = self.source.pinned, self.source.spec.ppo
        table, before = (pinned.prompts, old.prompts) if name == PROMPTS else (pinned.eval_prompts, old.eval_prompts)
        if (
            table is not None
            and before == data
            and all(getattr(old, each) == getattr(ppo, each) for each in TABLE_FIELDS)
        ):
            return table
        return await super().prompts(name, data, ppo)


@dataclass(frozen=True)
class ForkResolver(Submitter):
    """A submitter that resolves the spec of a fork of `source`."""

    source: Plan = field(kw_only=True)

    def data_pinner(self, policy: PinnedModel) -> DataPinner:
        """Return what reads the data sets that the fork has changed."""
        return _ForkData(self.store, policy.tokenizer, self.sources, self.local_files, source=self.source)

    async def pin_reward(self, spec: JobSpec, data: DataPinner, trial: Trial) -> PinnedReward:
        """Return the source's reward, unless the fork names another one."""
        if same_reward(spec.reward, self.source.spec.reward):
            pinned = self.source.pinned
            return PinnedReward(pinned.reward, pinned.rows.get(REWARD), pinned.reward_is_local_model)
        return await super().pin_reward(spec, data, trial)

    async def pin_gold(self, section: RewardSpec, trial: Trial) -> RewardSection:
        """Return the source's gold reward, unless the fork names another one."""
        gold = self.source.pinned.eval_gold
        if gold is not None and section == self.source.spec.ppo.eval_gold:
            return gold
        return await super().pin_gold(section, trial)
