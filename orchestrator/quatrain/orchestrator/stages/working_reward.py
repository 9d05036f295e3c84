"""Which reward the rollouts are scored with, and what the value model starts from."""

from quatrain.joblog.payloads import OffsetMeasured
from quatrain.jobspec.reward_section import ModelSource, RewardSection
from quatrain.orchestrator.job.run import JobRun
from quatrain.orchestrator.stages.reward import measure_offset
from quatrain.orchestrator.stages.training import Opening
from quatrain.stages import PPO, REWARD


async def working_reward(run: JobRun) -> RewardSection:
    """Return the reward by content: the model trained in this job, or what the spec names."""
    section = run.plan.spec.reward
    trained = run.view.stage_results.get(REWARD.name)
    if trained is not None:
        model = trained.model
        source = ModelSource(uri=model.uri, digest=model.digest, name="reward_model", dtype=run.plan.dtype)
        reward, offset = RewardSection(models=(source,)), 0.0
    else:
        assert run.plan.pinned.reward is not None, "a job without reward stage names its reward"
        reward = run.plan.pinned.reward
        offset = await _external_offset(run, reward) if section.center else 0.0
    composed = {"scale": section.scale, "clip": section.clip, "timeout": section.timeout}
    return reward.model_copy(update={"offset": offset, **composed})


async def _external_offset(run: JobRun, reward: RewardSection) -> float:
    if run.view.offset is None:
        measured = await measure_offset(run, reward.raw())
        await run.append(OffsetMeasured(offset=measured.offset, samples=measured.samples))
        return measured.offset
    return run.view.offset.offset


def value_opening(run: JobRun, reward: RewardSection) -> Opening:
    """Return how the learner opens PPO: the value model starts from a local reward model, else from the SFT trunk."""
    plan = run.plan
    if plan.forked_from is not None:  # Its weights come with the checkpoint; only its architecture counts here.
        return Opening(PPO, run.sft_model(), value_model=plan.forked_from.value_model)
    trained = run.view.stage_results.get(REWARD.name)
    local = trained is not None or plan.pinned.reward_is_local_model
    if plan.spec.ppo.value_init == "sft" or not local:
        return Opening(PPO, run.sft_model())
    model = reward.models[0]
    # A model from outside has its own offset; centring here comes on top of it.
    external = (model.offset or 0.0) + reward.offset
    offset = external if trained is None else trained.report.offset or 0.0
    return Opening(PPO, run.sft_model(), model.ref, reward.scale, offset)
