"""The learner without gRPC: one session at a time, fenced by the owner's token; the model thread does the work.

Long operations are tasks that outlive the call that started them: a caller that lost its stream calls again and
attaches. All methods run on the event loop; torch runs only in the model thread, store I/O only in worker threads.

What holds between two calls (`session.py` has the states of a session):
- `_session` is None or the one session that has not ended. Whatever ends it (`_end`, a failed `_load`) also forgets it.
- `_newest[job]` is at least the token of every session that this process has opened for the job (of the last 256 jobs).
  It outlives the session, so that a superseded owner stays out after a close or a time-out.
- A session is claimed before its inputs are fetched, without an await between the comparison of tokens and the claim:
  of two owners that open at the same time the newer one wins.
- A long operation calls `session.check()` after its last await, before it changes the session or answers: the session
  may have been taken over meanwhile, and then its result is lost.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from quatrain.errors import InvalidInput, LearnerBusy, QuatrainError, Unavailable, WrongState
from quatrain.faults import fault_point
from quatrain.learner.artifacts import Artifacts
from quatrain.learner.backends import Backend, Inputs, Trainer
from quatrain.learner.requests import ExportedModel, OpenRequest, Status, StepOutcome, Token
from quatrain.learner.session import Session, Work, require_newest, require_token
from quatrain.process.model_thread import ModelThread
from quatrain.refs import ModelRef, ObjectRef
from quatrain.telemetry.logging import get_logger

T = TypeVar("T")

# Jobs whose newest token is remembered after their session: enough for late calls of recent owners.
_REMEMBERED_JOBS = 256

_log = get_logger("quatrain.learner")


@dataclass(frozen=True)
class Host:
    """A learner process: its stable name, and the seconds after which a silent owner loses the session."""

    learner_id: str
    owner_timeout: float


class LearnerService:
    """The service of one token at a time. `log_check` raises Fenced for a token that the job's log has superseded."""

    def __init__(
        self,
        host: Host,
        backend: Backend,
        artifacts: Artifacts,
        thread: ModelThread,
        *,
        log_check: Callable[[Token], None] = lambda token: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host = host
        self._backend = backend
        self._artifacts = artifacts
        self._thread = thread
        self._log_check = log_check
        self._clock = clock
        self._session: Session | None = None
        self._newest: OrderedDict[str, Token] = OrderedDict()

    async def open(self, request: OpenRequest) -> Status:
        """Open a stage and wait until it is loaded; the same token again attaches or returns the status.

        Raises LearnerBusy for another job, Fenced for an older token, and what loading raises.
        """
        _check_request(request)
        await asyncio.to_thread(self._log_check, request.token)
        session = self._claim(request)
        if session.opening is not None:
            await asyncio.wait({session.opening})
            if session.opening.cancelled():
                raise Unavailable(f"learner {self._host.learner_id} did not open the stage: it is stopping")
            session.opening.result()
        session.last_sign = self._clock()
        return self.status(request.token)

    def status(self, token: Token | None = None) -> Status:
        """Return who holds the learner and where it is; the session's own token renews the owner's sign of life.

        Raises Unavailable if the model thread is stuck.
        """
        self.check_progress()
        session = self._session
        if session is None:
            return Status(self._host.learner_id, self._backend.device)
        if token == session.token:
            session.last_sign = self._clock()
        running = session.running
        return Status(
            learner_id=self._host.learner_id,
            device=self._backend.device,
            token=session.token,
            stage=session.request.stage,
            step=session.step,
            policy_version=session.step,
            running_step=running.step if running is not None and running.kind == "step" else 0,
        )

    def step(self, token: Token, step: int, batch: ObjectRef | None) -> asyncio.Future[StepOutcome]:
        """Train step `step`, attach to it while it runs, or return the recorded result of the last one."""
        session = self._require(token)
        attached = self._attach(session, "step", step)
        if attached is not None:
            return attached
        if session.running is None and step != session.step + 1:
            raise WrongState(f"The learner is at step {session.step} of {token}; step {step} does not follow it.")
        if step > session.request.total_steps:
            raise WrongState(f"The stage has {session.request.total_steps} steps; there is no step {step}.")
        if (batch is None) == session.request.stage.uses_rollouts:
            raise InvalidInput("A sealed batch goes with every step that trains on rollouts and with no other step.")
        return self._start(session, "step", step, self._train(session, step, batch))

    def publish(self, token: Token, step: int) -> asyncio.Future[ModelRef]:
        """Write the weights after step `step` as a policy version; step 0 is the start version."""
        session = self._require(token)
        attached = self._attach(session, "publish", step)
        return attached or self._start(session, "publish", step, self._publish(session))

    def save(self, token: Token, step: int) -> asyncio.Future[ObjectRef]:
        """Write all state after step `step` as a checkpoint folder and return its manifest."""
        session = self._require(token)
        attached = self._attach(session, "save", step)
        return attached or self._start(session, "save", step, self._save(session))

    def export(self, token: Token, extra_files: dict[str, bytes]) -> asyncio.Future[ExportedModel]:
        """Write the current model as a Hugging Face folder under models/DIGEST; equal content gives an equal digest."""
        session = self._require(token)
        running = session.running
        if running is not None and running.kind == "export":
            return running.task
        return self._start(session, "export", session.step, self._export(session, dict(extra_files)))

    async def logprobs(
        self,
        token: Token,
        prompts: Sequence[npt.NDArray[np.int32]],
        completions: Sequence[npt.NDArray[np.int32]],
        temperature: float,
    ) -> tuple[list[npt.NDArray[np.float32]], int]:
        """Return logprobs under the policy in training, and its version. Raises WrongState while something runs."""
        session = self._require(token)
        _refuse_running(session, "logprobs")
        session.require_stored()
        trainer = session.ready()
        version = session.step
        return await self._thread.run(trainer.logprobs, prompts, completions, temperature), version

    def close(self, token: Token) -> None:
        """End the session of `token`, if there is one. Raises Fenced for an older token."""
        session = self._session
        if session is None or session.token.job != token.job:
            return
        self._end(require_token(session, token, self._newest.get(token.job)), "closed by its owner")

    def touch(self, token: Token) -> None:
        """Record a sign of life of the owner: a heartbeat reached it. Raises as every other call does."""
        self._require(token)

    def check_progress(self) -> None:
        """Raise Unavailable if the model thread is stuck."""
        self._thread.check_progress()

    def close_if_silent(self) -> bool:
        """End the session if its owner gave no sign of life for `owner_timeout` seconds."""
        session = self._session
        if session is None or self._clock() - session.last_sign <= self._host.owner_timeout:
            return False
        self._end(session, f"no sign of life from its owner for {self._host.owner_timeout:g} s")
        return True

    async def hand_back(self) -> None:
        """Finish a checkpoint or an export before the process ends, and cancel everything else."""
        session = self._session
        if session is None:
            return
        running = session.running
        if running is not None and running.kind in ("save", "export"):
            await asyncio.wait({running.task})
        elif running is not None:
            running.task.cancel()
        if session.opening is not None:
            session.opening.cancel()

    async def watch(self) -> None:
        """Close the session of a silent owner; runs for as long as the process lives."""
        while True:
            await asyncio.sleep(min(1.0, self._host.owner_timeout / 4))
            self.close_if_silent()

    # -- the session

    def _claim(self, request: OpenRequest) -> Session:
        session, token = self._session, request.token
        require_newest(token, self._newest.get(token.job))
        if session is not None:
            if session.token.job != token.job:
                raise LearnerBusy(
                    f"Learner {self._host.learner_id} serves {session.token}, not job {token.job}; "
                    "use another learner or wait until it is free."
                )
            if session.token.precedence == token.precedence:
                return session
            self._end(session, f"taken over by {token}")
        self._newest[token.job] = token
        self._newest.move_to_end(token.job)
        if len(self._newest) > _REMEMBERED_JOBS:
            self._newest.popitem(last=False)
        claimed = Session(request, self._clock(), made_progress=self._thread.made_progress)
        self._session = claimed
        claimed.opening = _task(self._load(claimed))
        return claimed

    async def _load(self, session: Session) -> None:
        try:
            inputs = await asyncio.to_thread(self._artifacts.fetch, session.request)
            trainer = await self._thread.run(self._build, session, inputs)
            session.check()
            session.step = trainer.step
            session.trainer = trainer
        finally:
            if session.trainer is None and self._session is session:
                self._session = None
        session.last_sign = self._clock()
        fault_point("learner.after_load")
        _log.info("stage opened", job=session.token.job, stage=session.request.stage.name, step=session.step)

    def _build(self, session: Session, inputs: Inputs) -> Trainer:
        session.check()
        trainer = self._backend.open(session.request, inputs)
        if session.request.checkpoint is not None:
            trainer.load(self._artifacts.checkpoint_folder(session.request.checkpoint))
        return trainer

    def _end(self, session: Session, why: str) -> None:
        session.end()
        if self._session is session:
            self._session = None
        _log.info("session ended", job=session.token.job, stage=session.request.stage.name, why=why)

    def _require(self, token: Token) -> Session:
        session = require_token(self._session, token, self._newest.get(token.job))
        session.last_sign = self._clock()
        return session

    # -- long operations

    def _attach(self, session: Session, kind: str, step: int) -> asyncio.Future[Any] | None:
        running = session.running
        if running is not None and (running.kind, running.step) == (kind, step):
            return running.task
        answered = session.answers.get(kind)
        if answered is not None and answered[0] == step:
            future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            future.set_result(answered[1])
            return future
        return None

    def _start(self, session: Session, kind: str, step: int, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        try:
            _refuse_running(session, f"{kind} of step {step}")
            session.ready()
            if kind != "step":
                session.require_stored()
                if step != session.step:
                    raise WrongState(
                        f"The learner is at step {session.step} of {session.token}; cannot {kind} step {step}."
                    )
        except QuatrainError:
            work.close()
            raise
        task = _task(work)
        session.work = Work(kind, step, task)
        return task

    async def _train(self, session: Session, step: int, batch: ObjectRef | None) -> StepOutcome:
        pending = session.pending
        if pending is None or pending.step != step:
            data = None if batch is None else await asyncio.to_thread(self._artifacts.read, batch)
            pending = await self._thread.run(session.train, step, data)
            fault_point("learner.after_train")
            session.check()
            session.pending = pending
        tokens = None
        if pending.result.tokens is not None:
            tokens = await asyncio.to_thread(self._artifacts.write_tokens, session.request, step, pending.result.tokens)
        session.check()
        fault_point("learner.before_reply")
        outcome = StepOutcome(step, pending.result.metrics, tokens, pending.seconds)
        session.pending = None
        session.step = step
        session.answers = {"step": (step, outcome)}
        return outcome

    async def _publish(self, session: Session) -> ModelRef:
        with self._artifacts.folder() as folder:
            await self._thread.run(session.ready().write_model, folder)
            published = await asyncio.to_thread(self._artifacts.publish, session.request, session.step, folder)
        fault_point("learner.after_publish")
        session.check()
        session.answers["publish"] = (session.step, published)
        return published

    async def _save(self, session: Session) -> ObjectRef:
        with self._artifacts.folder() as folder:
            await self._thread.run(session.ready().save, folder)
            manifest = await asyncio.to_thread(self._artifacts.save, session.request, session.step, folder)
        fault_point("learner.after_save")
        session.check()
        session.answers["save"] = (session.step, manifest)
        return manifest

    async def _export(self, session: Session, extra_files: dict[str, bytes]) -> ExportedModel:
        with self._artifacts.folder() as folder:
            await self._thread.run(session.ready().write_model, folder)
            exported = await asyncio.to_thread(self._artifacts.export, session.request, folder, extra_files)
        fault_point("learner.after_export")
        session.check()
        return exported


def _check_request(request: OpenRequest) -> None:
    token = request.token
    if not token.job or token.epoch < 1 or token.attempt < 1:
        raise InvalidInput(f"A token needs a job, an epoch of 1 or more and an attempt of 1 or more, not {token}.")
    if request.total_steps < 1:
        raise InvalidInput(f"total_steps must be 1 or more, not {request.total_steps}.")
    if not request.stage.uses_rollouts and request.data is None:
        raise InvalidInput(f"Stage {request.stage} needs its prepared rows (field data).")
    if request.stage.uses_rollouts and not request.temperature > 0:
        raise InvalidInput(f"temperature must be above 0, not {request.temperature}.")


def _refuse_running(session: Session, wanted: str) -> None:
    running = session.running
    if running is not None:
        raise WrongState(f"The learner is busy with {running.kind} of step {running.step}; {wanted} has to wait.")


def _task(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    task = asyncio.get_running_loop().create_task(work)
    # The caller may be gone when the task fails; the next call raises its error then, so the loop need not log it.
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task
