"""The one session that a learner holds: its token, its trainer, what runs and what was answered last."""

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from quatrain.errors import Fenced, LearnerBusy, QuatrainError, WrongState
from quatrain.learner.backends import StepResult, Trainer
from quatrain.learner.requests import OpenRequest, Token


@dataclass(frozen=True)
class Work:
    """One long operation of a session; a second call for the same (kind, step) attaches to its task."""

    kind: str
    step: int
    task: asyncio.Task[Any]


@dataclass(frozen=True)
class PendingResult:
    """A step that is trained but whose per-token results are not stored yet: a repeated call only stores them."""

    step: int
    result: StepResult
    seconds: float


@dataclass
class Session:
    """State of one opened stage. Touched by the event loop only, except `ended`, `failure` and the trainer's inside."""

    request: OpenRequest
    last_sign: float
    opening: asyncio.Task[None] | None = None
    trainer: Trainer | None = None
    step: int = 0
    work: Work | None = None
    pending: PendingResult | None = None
    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)
    failure: QuatrainError | None = None
    ended: threading.Event = field(default_factory=threading.Event)
    made_progress: Callable[[], None] = lambda: None
    """Told that a step gets on."""

    @property
    def token(self) -> Token:
        """The token that opened the session."""
        return self.request.token

    @property
    def running(self) -> Work | None:
        """The operation that runs now."""
        return self.work if self.work is not None and not self.work.task.done() else None

    def end(self) -> None:
        """Ends the session: what runs stops at its next check, the trainer is freed when nothing uses it any more."""
        self.ended.set()
        self.trainer = None
        self.pending = None

    def check(self) -> None:
        """Raises Fenced once the session has ended."""
        if self.ended.is_set():
            raise Fenced(f"The session of {self.token} has ended; a newer owner or a time-out closed it.")

    def tick(self) -> None:
        """Between microbatches, in whichever thread computes them."""
        self.made_progress()
        self.check()

    def ready(self) -> Trainer:
        """The trainer. Raises WrongState while the stage is being opened, and the failure that made it unusable."""
        if self.failure is not None:
            raise self.failure
        if self.trainer is None:
            raise WrongState(f"The learner is still opening {self.token}; call Open again and wait for its answer.")
        return self.trainer

    def require_stored(self) -> None:
        """Raise WrongState if the trainer is ahead of `step`: a result could not be stored yet."""
        if self.pending is not None:
            raise WrongState(
                f"Step {self.pending.step} of {self.token} is trained, but its result is not stored; call Step again."
            )

    def train(self, step: int, batch: bytes | None) -> PendingResult:
        """Trains one step on the model thread; a failure makes the session unusable, since state is half changed."""
        trainer = self.ready()
        self.failure = WrongState(f"Step {step} of {self.token} broke off halfway; open the stage again to go on.")
        started = time.perf_counter()
        try:
            result = trainer.train(step, batch, self.tick)
        except QuatrainError as error:
            self.failure = error
            raise
        self.failure = None
        return PendingResult(step, result, time.perf_counter() - started)


def require_token(session: Session | None, token: Token, newest: Token | None) -> Session:
    """The session that `token` owns.

    `newest` is the newest token of the job that this process has seen. Raises WrongState when nothing is open or the
    token is newer than the session's, LearnerBusy for another job, Fenced for an older token.
    """
    if newest is not None and token.rank < newest.rank:
        raise Fenced(f"{token} is superseded by epoch {newest.epoch} attempt {newest.attempt}; stop this owner.")
    if session is None:
        raise WrongState(f"The learner has no open session; open one for {token} first.")
    if session.token.job != token.job:
        raise LearnerBusy(f"The learner serves {session.token}, not job {token.job}; use another learner or wait.")
    if token.rank > session.token.rank:
        raise WrongState(f"The learner serves {session.token}; open it with {token} before using it.")
    return session
