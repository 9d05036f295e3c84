"""What the terminal event of a failed job says: where it was, with which version, what happened, and what to do."""

from quatrain.errors import OutOfMemory, QuatrainError
from quatrain.joblog.payloads import JobError
from quatrain.orchestrator.job.run import JobFailed, JobRun
from quatrain.orchestrator.peers.learner_session import LearnerLost
from quatrain.orchestrator.plan import Plan
from quatrain.stages import Stage, stage_named

ADVICE = {
    "WALL_TIME": "raise limits.wall_time in a new job",
    "STAGE_TIME": "raise limits.stage_time in a new job",
    "OWNERS_LOST": "look at the orchestrators' logs (killed for memory?), and submit it with a smaller step",
    "RETRIES_USED_UP": "look at the learners' logs, then raise limits.retries or lower checkpoint.every_steps",
    "TOO_MANY_REFUSED": "mend the reward, or raise ppo.max_refused_share",
    "REWARD_FUNCTION_FAILED": "mend the function; `quatrain job submit FILE --dry-run` tries it",
    "OUT_OF_MEMORY": "lower ppo.chunk_size or ppo.generation.max_new_tokens, or give the service more memory",
    "CORRUPT": "the object store has lost or changed data: bring them back, or start again from what is left",
    "NOT_FOUND": "the object store has lost data: bring them back, or start again from what is left",
    "INTERNAL": "look at the log of the service that is named here, and report it",
}
"""By reason, for errors whose text does not end with it already."""


def failure(run: JobRun, error: QuatrainError) -> JobError:
    """Return the `error` of the terminal event."""
    advice = ADVICE.get(error.code_reason)
    text = f"{_place(run)}: {error.message.rstrip('.')}" + (f"; {advice}" if advice else "")
    return JobError(reason=error.code_reason, message=text)


def last_attempt(run: JobRun, error: LearnerLost) -> JobFailed | None:
    """Return why there is no further attempt after this one, which is in the log; None when there is one."""
    plan, failures = run.plan, run.view.failures
    if [failed.reason for failed in failures[-2:]] == [OutOfMemory.reason] * 2:
        text = f"{error.message}, twice in a row; {_memory_knobs(plan, stage_named(run.view.stage))}"
        return JobFailed(text, reason="LEARNER_OUT_OF_MEMORY")
    budget = plan.spec.limits.retries
    if len(failures) <= budget:
        return None
    return JobFailed(
        f"{error.message}; {len(failures)} attempts failed since the last checkpoint, limits.retries is {budget}",
        reason="RETRIES_USED_UP",
    )


def _place(run: JobRun) -> str:
    """Return stage, step, version and attempt as text."""
    view, plan = run.view, run.plan
    if not view.stage:
        return f"before the first stage, model {plan.pinned.model.digest[:12]}"
    stage = stage_named(view.stage)
    version = f"policy version {max(view.policies, default=0)}" if stage.uses_rollouts else ""
    model = version or f"model {run.sft_model().digest[:12]}"
    done = view.completed.get(stage.name, 0)
    return f"{stage} after step {done} of {plan.total_steps(stage)}, {model}, attempt {view.stage_attempt}"


def _memory_knobs(plan: Plan, stage: Stage) -> str:
    if stage.uses_rollouts:
        field, tokens = f"{stage}.optimizer.microbatch_tokens", plan.spec.ppo.optimizer.microbatch_tokens
    else:
        field, tokens = f"{stage}.microbatch_tokens", plan.rows_section(stage).microbatch_tokens
    smaller = ", or model.dtype to bfloat16" if plan.dtype == "float32" else ""
    return f"lower {field} (it is {tokens}){smaller}, or use a learner with more memory"
