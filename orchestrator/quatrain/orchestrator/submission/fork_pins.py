"""Pins of a fork: what its source has pinned and the fork has not changed is taken over, not read again."""

from dataclasses import dataclass, field
from typing import Any

from quatrain.orchestrator.submission.fork_spec import same_reward
from quatrain.orchestrator.submission.models import PinnedModel
from quatrain.orchestrator.submission.submit import Submitter, Trial
from quatrain.orchestrator.submission.tables import DataPinner
from quatrain.refs import TableRef

REWARD = ("reward", "reward_data", "reward_held_out", "reward_is_local_model")
TABLE_FIELDS = ("max_prompt_length", "truncate_prompt")


@dataclass
class _ForkData(DataPinner):
    """`before` is the source's spec.json."""

    before: dict[str, Any] = field(default_factory=dict)

    async def sft(self, section: dict[str, Any]) -> TableRef:
        """A fork cannot change it."""
        return TableRef.from_json(self.before["pinned"]["sft_data"])

    async def prompts(self, name: str, data: dict[str, Any], ppo: dict[str, Any]) -> TableRef:
        """The source's table, unless the fork names other prompts or prepares them otherwise."""
        old, key = self.before["spec"]["ppo"], name.removeprefix("ppo.")
        if old[key] == data and all(old[each] == ppo[each] for each in TABLE_FIELDS):
            return TableRef.from_json(self.before["pinned"][key])
        return await super().prompts(name, data, ppo)


@dataclass(frozen=True)
class ForkResolver(Submitter):
    """Resolves the spec of a fork; `before` is the source's spec.json."""

    before: dict[str, Any] = field(default_factory=dict)

    def data_pinner(self, policy: PinnedModel) -> DataPinner:
        """See `Submitter.data_pinner`."""
        return _ForkData(self.store, policy.tokenizer, self.sources, self.local_files, before=self.before)

    async def pin_reward(self, resolved: dict[str, Any], data: DataPinner, trial: Trial) -> dict[str, Any]:
        """The source's entries, unless the fork names another reward."""
        if same_reward(resolved["reward"], self.before["spec"]["reward"]):
            return {name: self.before["pinned"][name] for name in REWARD}
        return await super().pin_reward(resolved, data, trial)

    async def pin_gold(self, section: dict[str, Any], trial: Trial) -> dict[str, Any]:
        """The source's entry, unless the fork names another one."""
        if section == self.before["spec"]["ppo"]["eval_gold"]:
            gold: dict[str, Any] = self.before["pinned"]["eval_gold"]
            return gold
        return await super().pin_gold(section, trial)
