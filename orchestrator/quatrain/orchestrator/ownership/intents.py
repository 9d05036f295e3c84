"""What people ask of a running job - end it, pause it, go on - and the limits that its spec sets."""

import asyncio
import contextlib

from quatrain.errors import Fenced, QuatrainError, Unavailable
from quatrain.faults import fault_point
from quatrain.joblog.payloads import StateChanged
from quatrain.orchestrator.job.await_rollouts import ROLLOUTS
from quatrain.orchestrator.job.run import UNAVAILABLE, JobFailed, JobPaused, JobRun
from quatrain.orchestrator.stages.training import save_checkpoint
from quatrain.telemetry.logging import get_logger

log = get_logger("intents")

POLL_SECONDS = 1.0
RETRY_SECONDS = 2.0


class CancelNow(Exception):
    """Somebody asked for the end at once."""


async def watch_intents(run: JobRun) -> None:
    """Apply intents and limits until cancelled. Raises CancelNow, JobFailed (a time limit) or Fenced.

    A graceful cancel or a pause ends every wait for others at once, and the training at the next step boundary.
    """
    while True:
        await _apply_intents(run)
        _check_limits(run)
        await asyncio.sleep(POLL_SECONDS)
        with contextlib.suppress(Unavailable):
            await run.refresh()


async def _apply_intents(run: JobRun) -> None:
    cancel, pause = run.view.intents.cancel, run.view.intents.pause
    if cancel is not None:
        if cancel.now:
            raise CancelNow
        await run.set_state("CANCELLING", cancel.reason)
        run.stopping.set()
    elif pause is not None:
        await run.set_state("PAUSING", pause.reason)
        run.stopping.set()
    else:
        run.stopping.clear()
        if run.view.state == "PAUSING" and run.session is not None:
            await run.set_state("RUNNING", "the pause was taken back")


def _check_limits(run: JobRun) -> None:
    limits, elapsed = run.plan.spec.limits, run.elapsed()
    if limits.wall_time is not None and elapsed > limits.wall_time:
        raise JobFailed(f"limits.wall_time of {limits.wall_time} s has passed", reason="WALL_TIME")
    if limits.stage_time is not None and run.view.stage and elapsed - run.view.stage_began > limits.stage_time:
        text = f"stage {run.view.stage} has taken longer than limits.stage_time of {limits.stage_time} s"
        raise JobFailed(f"{text}, it is at step {run.view.step} of {run.view.total_steps}", reason="STAGE_TIME")


async def keep_progress(run: JobRun) -> None:
    """Save what was trained since the last checkpoint. A step that was broken off is left out: it is made again."""
    session, cancel = run.session, run.view.intents.cancel
    if session is None or session.stage is None or session.stage.name != run.view.stage:
        return
    if cancel is not None and cancel.now:
        return
    last = run.view.newest_checkpoint(session.stage.name)
    if not (last.step if last else 0) < session.step <= run.view.completed.get(session.stage.name, 0):
        return
    while True:
        try:
            await save_checkpoint(run, session, session.stage, session.step)
            return
        except JobPaused:
            continue  # The learner is ours and cannot answer now; a pause is in no hurry.
        except Fenced:
            raise
        except QuatrainError as error:
            log.warning("stopped without a checkpoint", job=run.plan.job, error=error.message)
            return


async def pause_job(run: JobRun) -> bool:
    """Give up the learner, everything in the queue and the job itself.

    Returns False when the pause was taken back, or a cancel came: the job goes on.
    """
    while True:
        pause = run.view.intents.pause
        if pause is None or run.view.intents.cancel is not None:
            return False
        try:
            await run.set_state("PAUSING", pause.reason)
            await run.close_session()
            fault_point("owner.before_paused")
            await run.collector.close()
            for condition in ("learner", UNAVAILABLE, ROLLOUTS):
                await run.condition(condition, None)
            await run.append(StateChanged(state="PAUSED", reason=pause.reason, elapsed=run.elapsed()))
            fault_point("owner.after_paused")
            return True
        except Unavailable as error:
            await run.set_unavailable(error)
            await asyncio.sleep(RETRY_SECONDS)
            with contextlib.suppress(Unavailable):
                await run.refresh()
