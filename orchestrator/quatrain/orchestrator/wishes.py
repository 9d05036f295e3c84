"""What people ask of a running job - end it, pause it, go on - and the limits that its spec sets."""

import asyncio
import contextlib

from quatrain.errors import Fenced, QuatrainError, Unavailable
from quatrain.faults import fault_point
from quatrain.orchestrator.run import AWAY, STAGE_IDS, JobFailed, JobPaused, JobRun
from quatrain.orchestrator.training import save_checkpoint
from quatrain.orchestrator.waiting import ROLLOUTS
from quatrain.telemetry.logging import get_logger

log = get_logger("wishes")

LOOK_SECONDS = 1.0
RETRY_SECONDS = 2.0


class CancelNow(Exception):
    """Somebody asked for the end at once."""


async def watch_wishes(run: JobRun) -> None:
    """Ends with CancelNow, JobFailed (a time limit) or Fenced.

    A graceful wish ends every wait for others at once, and the training at the next step boundary.
    """
    while True:
        await _heed(run)
        _check_limits(run)
        await asyncio.sleep(LOOK_SECONDS)
        with contextlib.suppress(Unavailable):
            await run.refresh()


async def _heed(run: JobRun) -> None:
    cancel, pause = run.view.intents.get("cancel"), run.view.intents.get("pause")
    if cancel is not None:
        if cancel.get("now"):
            raise CancelNow
        await run.set_state("CANCELLING", cancel.get("reason", ""))
        run.stopping.set()
    elif pause is not None:
        await run.set_state("PAUSING", pause.get("reason", ""))
        run.stopping.set()
    else:
        run.stopping.clear()
        if run.view.state == "PAUSING" and run.session is not None:
            await run.set_state("RUNNING", "the pause was taken back")


def _check_limits(run: JobRun) -> None:
    limits, elapsed = run.plan.spec["limits"], run.elapsed()
    if limits["wall_time"] is not None and elapsed > float(limits["wall_time"]):
        raise JobFailed(f"limits.wall_time of {limits['wall_time']} s has passed", reason="WALL_TIME")
    most = limits.get("stage_time")  # Absent in jobs that are older than this limit.
    if most is not None and run.view.stage and elapsed - run.view.stage_began > float(most):
        text = f"stage {run.view.stage} has taken longer than limits.stage_time of {most} s, it is at step "
        raise JobFailed(f"{text}{run.view.step} of {run.view.total_steps}", reason="STAGE_TIME")


async def keep_progress(run: JobRun) -> None:
    """Saves what was trained since the last checkpoint. A step that was broken off is left out: it is made again."""
    session, stage = run.session, run.view.stage
    if session is None or session.stage != STAGE_IDS.get(stage):
        return
    if run.view.intents.get("cancel", {}).get("now"):
        return
    last = run.view.newest_checkpoint(stage)
    if not (last["step"] if last else 0) < session.step <= run.view.completed.get(stage, 0):
        return
    while True:
        try:
            await save_checkpoint(run, session, stage, session.step)
            return
        except JobPaused:
            continue  # The learner is ours and cannot answer now; a pause has time.
        except Fenced:
            raise
        except QuatrainError as error:
            log.warning("stopped without a checkpoint", job=run.plan.job, error=error.message)
            return


async def rest(run: JobRun) -> bool:
    """Gives up the learner, everything in the queue and the job itself.

    False when the wish was taken back, or somebody wants the end: the job goes on.
    """
    while True:
        wish = run.view.intents.get("pause")
        if wish is None or "cancel" in run.view.intents:
            return False
        try:
            await run.set_state("PAUSING", wish.get("reason", ""))
            await run.close_session()
            fault_point("owner.before_paused")
            await run.collector.close()
            for condition in ("learner", AWAY, ROLLOUTS):
                await run.condition(condition, None)
            data = {"state": "PAUSED", "reason": wish.get("reason", ""), "elapsed": run.elapsed()}
            await run.append("state_changed", data)
            fault_point("owner.after_paused")
            return True
        except Unavailable as error:
            await run.say_away(error)
            await asyncio.sleep(RETRY_SECONDS)
            with contextlib.suppress(Unavailable):
                await run.refresh()
