"""The sync client: the async one on an event loop in a thread of its own. Only the waiting is done here."""

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from quatrain.client.asynchronous import AsyncClient, Checkpoints, Events, Jobs, NamedModels, Paths, Rollouts, Rows
from quatrain.client.following import PATIENCE
from quatrain.client.resources import Artifact, Job, NamedModel, Update
from quatrain.client.reward_tests import RewardTest
from quatrain.rpc.certificates import CertificateFiles

T = TypeVar("T")


class Client:
    """A client of the Quatrain API. Thread-safe; close it, or use `with`.

    Every method does what the one of the same name does in `AsyncClient`, where its arguments and errors are described.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        token: str | None = None,
        certificates: CertificateFiles | None = None,
        insecure: bool | None = None,
    ) -> None:
        """Start the event loop and its thread; the arguments are those of `AsyncClient`."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="quatrain-client", daemon=True)
        self._thread.start()
        self._client: AsyncClient | None = None
        try:
            self._client = self._run(_open(target, token, certificates, insecure))
        finally:
            if self._client is None:
                self.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection, every call on it, and the thread. Idempotent."""
        if self._loop.is_closed():
            return
        if self._client is not None:
            self._run(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def target(self) -> str:
        """The address of the API."""
        return self._open_client.target

    def submit(
        self,
        spec: Path | str | Mapping[str, object],
        *,
        overrides: Sequence[str] = (),
        job_id: str = "",
        request_id: str = "",
        validate_only: bool = False,
    ) -> Job:
        """Create a job from a spec file (Path), a YAML text (str) or a document, and return it."""
        return self._run(
            self._open_client.submit(
                spec, overrides=overrides, job_id=job_id, request_id=request_id, validate_only=validate_only
            )
        )

    def test_reward(
        self,
        spec: Path | str | Mapping[str, object],
        *,
        overrides: Sequence[str] = (),
        rows: int = 8,
        completions: Sequence[str] = (),
        gold: bool = False,
    ) -> RewardTest:
        """Score rows of a spec's prompts with its reward, or the gold reward, and make no job."""
        return self._run(
            self._open_client.test_reward(spec, overrides=overrides, rows=rows, completions=completions, gold=gold)
        )

    def get(self, job: str) -> Job:
        """Return one job."""
        return self._run(self._open_client.get(job))

    def list(self, *, states: Sequence[str] = (), limit: int | None = None) -> Jobs:
        """Return the jobs, newest first, without their specs."""
        return self._run(self._open_client.list(states=states, limit=limit))

    def watch(self, job: str, *, after_revision: int = 0, patience: float = PATIENCE) -> Iterator[Update]:
        """Yield a snapshot (without `after_revision`), then every change; end after the terminal one."""
        return self._iterate(self._open_client.watch(job, after_revision=after_revision, patience=patience))

    def wait(self, job: str, *, timeout: float | None = None) -> Job:
        """Wait until the job has finished, however it ended, and return it."""
        return self._run(self._open_client.wait(job, timeout=timeout))

    def metrics(
        self, job: str, *, stage: str = "ppo", names: Sequence[str] = (), from_step: int = 0, to_step: int = 0
    ) -> Rows:
        """Return the metrics of a stage, one flat dict a step."""
        return self._run(self._open_client.metrics(job, stage=stage, names=names, from_step=from_step, to_step=to_step))

    def rollouts(
        self, job: str, *, step: int | None = None, evaluation: bool = False, limit: int = 0, order_by: str = ""
    ) -> Rollouts:
        """Return the samples of a sealed step (None: the newest) or of an evaluation."""
        return self._run(
            self._open_client.rollouts(job, step=step, evaluation=evaluation, limit=limit, order_by=order_by)
        )

    def events(self, job: str, *, after_revision: int = 0) -> Events:
        """Return the events of a job's log so far, oldest first."""
        return self._run(self._open_client.events(job, after_revision=after_revision))

    def cancel(self, job: str, *, now: bool = False, reason: str = "") -> Job:
        """Ask for the end of a job: after the running step and a checkpoint, or at once with `now`."""
        return self._run(self._open_client.cancel(job, now=now, reason=reason))

    def pause(self, job: str, *, reason: str = "") -> Job:
        """Ask for a pause: after the running step and a checkpoint the job gives its learner back."""
        return self._run(self._open_client.pause(job, reason=reason))

    def resume(self, job: str, *, reason: str = "") -> Job:
        """End a pause, or take back that one was asked for."""
        return self._run(self._open_client.resume(job, reason=reason))

    def fork(
        self,
        job: str,
        *,
        step: int | None = None,
        overrides: Sequence[str] = (),
        job_id: str = "",
        request_id: str = "",
    ) -> Job:
        """Start a new job from the PPO checkpoint of a step (None: the newest) and return it."""
        return self._run(
            self._open_client.fork(job, step=step, overrides=overrides, job_id=job_id, request_id=request_id)
        )

    def checkpoints(self, job: str) -> Checkpoints:
        """Return the committed checkpoints in the order of their commits."""
        return self._run(self._open_client.checkpoints(job))

    def pin_checkpoint(self, job: str, step: int, *, pinned: bool = True, reason: str = "") -> None:
        """Keep the PPO checkpoint of a step and its policy, or lift that."""
        self._run(self._open_client.pin_checkpoint(job, step, pinned=pinned, reason=reason))

    def delete_checkpoint(self, job: str, step: int, *, reason: str = "") -> None:
        """Give up the PPO checkpoint of a step."""
        self._run(self._open_client.delete_checkpoint(job, step, reason=reason))

    def delete(self, job: str, *, reason: str = "") -> None:
        """Delete a finished job's data; spec, events and finished models stay."""
        self._run(self._open_client.delete(job, reason=reason))

    def download(
        self, job: str, to: Path, *, what: str = "model", step: int | None = None, force: bool = False
    ) -> Paths:
        """Download a Hugging Face folder of a job to `to` and return its files; `force` replaces other files there."""
        return self._run(self._open_client.download(job, to, what=what, step=step, force=force))

    def upload(self, path: Path) -> Artifact:
        """Upload a data or code file by content."""
        return self._run(self._open_client.upload(path))

    def import_model(self, folder: Path | str, *, name: str = "") -> NamedModel:
        """Upload a Hugging Face folder and make it a model, under a name if one is given."""
        return self._run(self._open_client.import_model(folder, name=name))

    def list_models(self) -> NamedModels:
        """Return the named models, by name and number."""
        return self._run(self._open_client.list_models())

    def download_model(self, uri: str, to: Path, *, force: bool = False) -> Paths:
        """Download a model to `to` and return its files; `force` replaces other files there."""
        return self._run(self._open_client.download_model(uri, to, force=force))

    @property
    def _open_client(self) -> AsyncClient:
        if self._client is None or self._loop.is_closed():
            raise ValueError("the client is closed")
        return self._client

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        finally:
            # Ctrl-C ends the waiting; without this the call would go on unnoticed.
            future.cancel()

    def _iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        try:
            while not isinstance(item := self._run(_next(items)), _End):
                yield item
        finally:
            if not self._loop.is_closed():
                self._run(_end(items))


async def _open(
    target: str | None, token: str | None, certificates: CertificateFiles | None, insecure: bool | None
) -> AsyncClient:
    return AsyncClient(target, token=token, certificates=certificates, insecure=insecure)


class _End:
    """Mark of the end: it follows the last item."""


async def _next(items: AsyncIterator[T]) -> T | _End:
    return await anext(items, _End())


async def _end(items: AsyncIterator[Any]) -> None:
    close = getattr(items, "aclose", None)
    if close is not None:
        await close()
