"""The life of one owned job: take it, run its stages through losses and recoveries, end it."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from quatrain.backoff import Backoff
from quatrain.concurrency import run_until_first_exit
from quatrain.errors import TRANSIENT_ERRORS, Fenced, QuatrainError, Unavailable
from quatrain.faults import fault_point
from quatrain.joblog import Event, JobLog, LogConflict, jobs
from quatrain.joblog.payloads import AttemptFailed, JobError, JobFinished, OwnerTaken
from quatrain.orchestrator.job.context import OrchestratorContext
from quatrain.orchestrator.job.run import (
    UNAVAILABLE,
    JobCancelled,
    JobFailed,
    JobPaused,
    JobRun,
)
from quatrain.orchestrator.ownership.admission import MAX_LOST_OWNERS
from quatrain.orchestrator.ownership.failures import failure, last_attempt
from quatrain.orchestrator.ownership.intents import CancelNow, keep_progress, pause_job, watch_intents
from quatrain.orchestrator.peers.learner_session import LearnerLost
from quatrain.orchestrator.plan import Plan
from quatrain.orchestrator.retention.owner_cleanup import delete_released
from quatrain.orchestrator.rollout.collector import Collector
from quatrain.orchestrator.stages.ppo import run_ppo
from quatrain.orchestrator.stages.reward import run_reward
from quatrain.orchestrator.stages.sft import run_sft
from quatrain.stages import PPO, REWARD, SFT, Stage
from quatrain.telemetry import metrics
from quatrain.telemetry.logging import get_logger

log = get_logger("owner")

FINISHED = metrics.counter("jobs_finished", "Jobs that this orchestrator ended, by their last state", ("pool", "state"))

HOLD_SECONDS = 1.0
HOLD_TTL_SECONDS = 3.0
STORE_RETRY_SECONDS = 2.0
RECOVERY_SECONDS = 0.25
"""Wait before the second attempt; it doubles with each failure since the last checkpoint, up to 8 s."""

RUN_STAGE: dict[Stage, Callable[[JobRun], Awaitable[None]]] = {SFT: run_sft, REWARD: run_reward, PPO: run_ppo}


async def own(plan: Plan, context: OrchestratorContext, job_log: JobLog) -> None:
    """Take the job and work on it until it ends or another owner takes it. No error of the job leaves this function."""
    try:
        run = await _take(plan, context, job_log)
        if run is not None:
            await _own(run)
    finally:
        context.troubles.pop(plan.job, None)


async def _own(run: JobRun) -> None:
    plan, context = run.plan, run.context
    try:
        # Only the first ends by itself. An error in any of them ends this owner, and another one may do better.
        await run_until_first_exit(_live(run), run.collector.run(run.refresh), _hold(run), delete_released(run))
    except Fenced as error:
        log.warning("job has a newer owner", job=plan.job, error=error.message)
    finally:
        await run.abandon_session()
        with contextlib.suppress(Unavailable):
            if run.view.finished:  # An owner that stood still may have opened the job in Redis after its end.
                await context.queue.close_job(plan.job)
            await context.queue.release(plan.job, context.name)


async def _take(plan: Plan, context: OrchestratorContext, job_log: JobLog) -> JobRun | None:
    """Append the next epoch. Returns None when another owner was faster or the job has ended."""
    judged = job_log.view.epoch
    await asyncio.to_thread(job_log.refresh)
    view = job_log.view
    if view.finished or view.paused:
        return None
    if view.epoch != judged:  # Nobody has checked whether the newer owner lives.
        return None
    epoch, lost = view.epoch + 1, view.owner
    fault_point("owner.before_take")
    event = Event(OwnerTaken(owner=context.name), actor=context.name, epoch=epoch, attempt=view.attempt)
    while True:
        try:
            await asyncio.to_thread(job_log.append, event)
            break
        except (LogConflict, Fenced):
            return None
        except Unavailable as error:  # The event may have landed: appending it again tells.
            log.warning("object store is away, job not taken yet", job=plan.job, error=error.message)
            context.troubles[plan.job] = error.message
            await asyncio.sleep(STORE_RETRY_SECONDS)
    fault_point("owner.after_take")
    log.info("job taken", job=plan.job, epoch=epoch, revision=job_log.view.revision)
    collector = Collector(plan, epoch, context.queue, context.store)
    return JobRun(plan, context, job_log, epoch, collector, worked_before=job_log.view.elapsed, learner_left=bool(lost))


async def _hold(run: JobRun) -> None:
    """Renew the hint in Redis that this job has a living owner. No state depends on it."""
    while True:
        with contextlib.suppress(Unavailable):
            await run.context.queue.hold(run.plan.job, run.context.name, HOLD_TTL_SECONDS)
        await asyncio.sleep(HOLD_SECONDS)


async def _live(run: JobRun) -> None:
    """Run the stages; each loss of a learner is a new attempt, each absence of the store a wait."""
    while True:
        try:
            _apply_intents_first(run)
            _check_lost_owners(run)
            # Intents and limits are watched beside the stages.
            await run_until_first_exit(_work(run), watch_intents(run))
            await run.condition(UNAVAILABLE, None)
            await _finish(run, "SUCCEEDED", None)
            return
        except LearnerLost as error:
            if not await _recover(run, error):
                return
        except TRANSIENT_ERRORS as error:
            await run.set_unavailable(error)
            await asyncio.sleep(STORE_RETRY_SECONDS)
        except JobPaused:
            if await pause_job(run):
                return
        except JobCancelled:
            await _cancel_gracefully(run)
            return
        except CancelNow:
            await run.close_session()
            await _finish(run, "CANCELLED", None)
            return
        except Fenced:
            raise
        except QuatrainError as error:
            await _fail(run, error)
            return


def _apply_intents_first(run: JobRun) -> None:
    """Raise what an intent asks for before any work begins: what kills one owner after the other must not keep a person
    from ending the job."""
    cancel = run.view.intents.cancel
    if run.session is None:
        if cancel is not None and cancel.now:
            raise CancelNow
        run.raise_if_asked_to_stop()


def _check_lost_owners(run: JobRun) -> None:
    """Raise JobFailed when owner after owner was lost and none brought the job on."""
    lost = run.view.owners_without_progress - 1
    if lost >= MAX_LOST_OWNERS:
        text = f"{lost} orchestrators in a row were lost while they worked on it, none of them brought it on"
        raise JobFailed(text, reason="OWNERS_LOST")


async def _work(run: JobRun) -> None:
    try:
        await _run_stages(run)
    except (JobCancelled, JobPaused):
        await keep_progress(run)
        raise


async def _run_stages(run: JobRun) -> None:
    await run.retry_while_unavailable(run.collector.open)
    run.raise_if_asked_to_stop()
    if run.view.state in ("VALIDATING", "QUEUED", "PAUSING"):
        await run.set_state("STARTING", f"owned by {run.context.name}")
    if run.plan.forked_from is not None and run.view.forked is None:
        await run.append(run.plan.forked_from)
    for stage in run.plan.stages:
        if stage.name not in run.view.stage_results:
            await RUN_STAGE[stage](run)


async def _recover(run: JobRun, error: LearnerLost) -> bool:
    """Record the failed attempt. Returns False when the retry budget is used up and the job has failed."""
    view, learner = run.view, "" if run.session is None else run.session.learner_id
    await run.abandon_session()
    await run.append(
        AttemptFailed(
            reason=error.code_reason, message=error.message, stage=view.stage, step=view.step, learner=learner
        )
    )
    budget = run.plan.spec.limits.retries
    failures = len(run.view.failures)
    log.warning("attempt failed", job=run.plan.job, attempt=run.attempt, failures=failures, error=error.message)
    final = last_attempt(run, error)
    if final is not None:
        await _fail(run, final)
        return False
    checkpoint = view.newest_checkpoint(view.stage)
    where = f"step {checkpoint.step}" if checkpoint else "the start of the stage"
    await run.set_state(
        "RECOVERING", f"{error.message}; recovering from {where}, attempt {failures + 1} of {budget + 1}"
    )
    await asyncio.sleep(Backoff(RECOVERY_SECONDS, longest=8.0).pause(failures))
    return True


async def _cancel_gracefully(run: JobRun) -> None:
    """End the job after the running step has ended and its state is kept."""
    cancel = run.view.intents.cancel
    await run.set_state("CANCELLING", "" if cancel is None else cancel.reason)
    await run.close_session()
    await _finish(run, "CANCELLED", None)


async def _fail(run: JobRun, error: QuatrainError) -> None:
    reported = failure(run, error)
    log.error("job failed", job=run.plan.job, reason=reported.reason, error=reported.message)
    await run.close_session()
    await _finish(run, "FAILED", reported)


async def _finish(run: JobRun, state: str, error: JobError | None) -> None:
    """Write the terminal event, then remove the traces of the job in Redis and in the index of unfinished jobs."""
    while True:
        try:
            fault_point("owner.before_finish")
            if not run.view.finished:
                await run.append(JobFinished(state=state, error=error))
                FINISHED.labels(run.plan.spec.pool, state).inc()
            fault_point("owner.after_finish")
            await run.close_session()
            # The index comes last: a job that is in it is looked at again if we die here.
            await run.collector.close()
            fault_point("owner.after_clean")
            await asyncio.to_thread(jobs.retire, run.context.store, run.plan.job)
            return
        except Unavailable as away:
            log.warning("waiting to end the job", job=run.plan.job, error=away.message)
            await asyncio.sleep(STORE_RETRY_SECONDS)


__all__ = ["own"]
