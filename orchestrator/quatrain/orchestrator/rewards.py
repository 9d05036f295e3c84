"""Which reward the rollouts are scored with, and what the value model starts from."""

from typing import Any

from quatrain.orchestrator.run import JobRun
from quatrain.orchestrator.stages.reward import measure_offset, raw_section
from quatrain.orchestrator.training import Opening
from quatrain.refs import ModelRef


async def working_reward(run: JobRun) -> dict[str, Any]:
    """The reward section for ScoreRequest: the model trained in this job, or what the spec names."""
    section = run.plan.spec["reward"]
    trained = run.view.stage_results.get("reward")
    if trained is not None:
        reward: dict[str, Any] = {
            "models": [{**trained["model"], "weight": 1.0, "name": "reward_model", "dtype": run.plan.dtype}],
            "functions": [],
            "service": None,
            "offset": 0.0,
        }
    else:
        assert run.plan.reward is not None, "a job without reward stage names its reward"
        reward = dict(run.plan.reward)
        reward["offset"] = await _external_offset(run, reward) if section["center"] else 0.0
    reward["scale"] = float(section["scale"])
    reward["clip"] = section["clip"]
    reward["timeout_s"] = float(section["timeout"])
    return reward


async def _external_offset(run: JobRun, reward: dict[str, Any]) -> float:
    if run.view.offset is None:
        measured = await measure_offset(run, raw_section(reward))
        data = {"offset": measured.offset, "samples": len(measured.scores), "report": {}}
        await run.append("offset_measured", data)
        return measured.offset
    return float(run.view.offset["offset"])


def value_opening(run: JobRun, reward: dict[str, Any]) -> Opening:
    """How the learner opens PPO: the value model from the reward model where it is a local one, else the trunk."""
    plan = run.plan
    if plan.forked_from is not None:  # What it is comes from the checkpoint; here only its architecture counts.
        source = plan.forked_from["value_model"]
        return Opening(
            "ppo", run.sft_model(), plan.ppo, value_model=None if source is None else ModelRef.from_json(source)
        )
    trained = run.view.stage_results.get("reward")
    local = trained is not None or plan.reward_is_local_model
    if plan.ppo["value_init"] == "sft" or not local:
        return Opening("ppo", run.sft_model(), plan.ppo)
    source = reward["models"][0]
    if trained is not None:
        offset = float(trained["report"]["offset"])
    else:  # A model from outside has its own offset; centring here comes on top of it.
        offset = float(source["offset"]) + float(reward["offset"])
    model = ModelRef.from_json(source)
    return Opening("ppo", run.sft_model(), plan.ppo, None, None, model, float(reward["scale"]), offset)
