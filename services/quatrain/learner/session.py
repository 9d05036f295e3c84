"""The one session that a learner holds: its token, its trainer, what runs and what was answered last.

Between two calls a session is in one of these states:

| state   | opening | trainer | failure | running | pending | what a call with its token gets                       |
|---------|---------|---------|---------|---------|---------|-------------------------------------------------------|
| opening | runs    | None    | None    | None    | None    | Open waits for the answer, the others WrongState      |
| idle    | done    | set     | None    | None    | None    | it is served; the last answers are given again        |
| working | done    | set     | (*)     | set     | any     | the same call attaches, the others WrongState         |
| trained | done    | set     | None    | None    | set     | Step(`step` + 1) stores the result, others WrongState |
| broken  | done    | set     | set     | None    | None    | `failure`, until the stage is opened again            |
| ended   | any     | None    | any     | any     | None    | nothing: the service holds the session no more        |

(*) set while the model thread trains, so that a step that breaks off leaves the session broken, however it ends.

What changes together, without an await in between:
- `trainer` and `step` when the stage is loaded: `step` is the trainer's.
- `pending`, `step` and `answers` when a step is stored. With a pending result the trainer is one step ahead of `step`,
  so nothing of it may be written under the number `step`. `answers` hold the step that was finished last and what was
  written of it since.
- `ended` and `trainer` when the session ends. What still runs raises Fenced at its next check, and its result is lost.
"""

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
    """State of one opened stage. Only the event loop touches it, except `ended`, `failure` and the trainer's inside."""

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
    """Called between microbatches."""

    @property
    def token(self) -> Token:
        """Return the token that opened the session."""
        return self.request.token

    @property
    def running(self) -> Work | None:
        """Return the operation that runs now."""
        return self.work if self.work is not None and not self.work.task.done() else None

    def end(self) -> None:
        """End the session: what runs stops at its next check, and then the trainer is freed."""
        self.ended.set()
        self.trainer = None
        self.pending = None

    def check(self) -> None:
        """Raise Fenced if the session has ended."""
        if self.ended.is_set():
            raise Fenced(f"The session of {self.token} has ended; a newer owner or a time-out closed it.")

    def tick(self) -> None:
        """Report progress and check; called between microbatches, in whichever thread computes them."""
        self.made_progress()
        self.check()

    def ready(self) -> Trainer:
        """Return the trainer.

        Raises the failure that broke the session, Fenced when it has ended, WrongState while the stage is being opened.
        """
        if self.failure is not None:
            raise self.failure
        self.check()
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
        """Train one step on the model thread; a failure breaks the session, since state is half changed."""
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


def require_newest(token: Token, newest: Token | None) -> None:
    """Raise Fenced for a token that `newest`, the newest of its job that this process has seen, supersedes."""
    if newest is not None and token.precedence < newest.precedence:
        raise Fenced(f"{token} is superseded by epoch {newest.epoch} attempt {newest.attempt}; stop this owner.")


def require_token(session: Session | None, token: Token, newest: Token | None) -> Session:
    """Return the session that `token` owns.

    Raises WrongState when nothing is open or the token is newer than the session's, LearnerBusy for another job, Fenced
    for an older token.
    """
    require_newest(token, newest)
    if session is None:
        raise WrongState(f"The learner has no open session; open one for {token} first.")
    if session.token.job != token.job:
        raise LearnerBusy(f"The learner serves {session.token}, not job {token.job}; use another learner or wait.")
    if token.precedence > session.token.precedence:
        raise WrongState(f"The learner serves {session.token}; open it with {token} before using it.")
    return session
