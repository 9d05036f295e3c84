"""Which reward the rollouts are scored with, and what the value model starts from."""

from quatrain.jobspec.reward_section import ModelSource, RewardSection
from quatrain.orchestrator.run import JobRun
from quatrain.orchestrator.stages.reward import measure_offset
from quatrain.orchestrator.training import Opening
from quatrain.refs import ModelRef


async def working_reward(run: JobRun) -> RewardSection:
    """The reward by content: the model trained in this job, or what the spec names."""
    section = run.plan.spec["reward"]
    trained = run.view.stage_results.get("reward")
    if trained is not None:
        model = ModelRef.from_json(trained["model"])
        source = ModelSource(uri=model.uri, digest=model.digest, name="reward_model", dtype=run.plan.dtype)
        reward, offset = RewardSection(models=(source,)), 0.0
    else:
        assert run.plan.reward is not None, "a job without reward stage names its reward"
        reward = run.plan.reward
        offset = await _external_offset(run, reward) if section["center"] else 0.0
    composed = {"scale": section["scale"], "clip": section["clip"], "timeout": section["timeout"]}
    return reward.model_copy(update={"offset": offset, **composed})


async def _external_offset(run: JobRun, reward: RewardSection) -> float:
    if run.view.offset is None:
        measured = await measure_offset(run, reward.raw())
        data = {"offset": measured.offset, "samples": len(measured.scores), "report": {}}
        await run.append("offset_measured", data)
        return measured.offset
    return float(run.view.offset["offset"])


def value_opening(run: JobRun, reward: RewardSection) -> Opening:
    """How the learner opens PPO: the value model from the reward model where it is a local one, else the trunk."""
    plan = run.plan
    if plan.forked_from is not None:  # What it is comes from the checkpoint; here only its architecture counts.
        source = plan.forked_from["value_model"]
        began = None if source is None else ModelRef.from_json(source)
        return Opening("ppo", run.sft_model(), plan.ppo, value_model=began)
    trained = run.view.stage_results.get("reward")
    local = trained is not None or plan.reward_is_local_model
    if plan.ppo["value_init"] == "sft" or not local:
        return Opening("ppo", run.sft_model(), plan.ppo)
    model = reward.models[0]
    # A model from outside has its own offset; centring here comes on top of it.
    external = (model.offset or 0.0) + reward.offset
    offset = external if trained is None else float(trained["report"]["offset"])
    return Opening("ppo", run.sft_model(), plan.ppo, None, None, model.ref, reward.scale, offset)
