"""Reads a job as its log tells it and looks whether all that it keeps is there, byte for byte."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

from tests.integration.orchestrator.test_api import Api
from tests.integration.orchestrator.world import World

from quatrain.errors import Corrupt, NotFound
from quatrain.joblog import JobLog, JobView
from quatrain.storage import ObjectStore
from quatrain.storage.folders import read_manifest, read_object
from quatrain.v1 import job_pb2

MANIFEST = "/manifest.json"


def kept_folders(view: JobView) -> Iterator[tuple[str, str]]:
    """Prefix and digest of each checkpoint, policy and finished model."""
    for ref in view.checkpoints:
        yield ref.key.removesuffix(MANIFEST), ref.manifest.sha256
    models = [*view.policies.values(), *(result.model for result in view.stage_results.values())]
    for model in models:
        scheme, _, rest = model.uri.partition(":")
        yield (rest if scheme == "store" else f"models/{rest}"), model.digest


def kept_tables(view: JobView) -> Iterator[tuple[str, str]]:
    """Key and digest of each sealed batch, token table and evaluation."""
    sealed = [*(said.batch for said in view.sealed.values()), *(said.batch for said in view.evaluations.values())]
    for ref in [*sealed, *view.tokens.values()]:
        yield ref.key, ref.sha256


def missing(store: ObjectStore, view: JobView) -> dict[str, str]:
    """What the view names and the store does not have, with what is wrong."""
    wrong: dict[str, str] = {}
    for prefix, digest in kept_folders(view):
        try:
            for path, entry in read_manifest(store, prefix, digest).items():
                read_object(store, f"{prefix}/{path}", entry.sha256)
        except (NotFound, Corrupt) as error:
            wrong[prefix] = error.message
    for key, digest in kept_tables(view):
        try:
            read_object(store, key, digest)
        except (NotFound, Corrupt) as error:
            wrong[key] = error.message
    return wrong


def check_kept(store: ObjectStore, job: str) -> None:
    """Fails when something is missing that the log names and did not release before we looked."""
    wrong = missing(store, _view(store, job))
    if wrong:
        again = missing(store, _view(store, job))
        still = {name: text for name, text in wrong.items() if name in again}
        assert not still, still


class Watching:
    """Checks again and again while a job runs; `looks` says how often."""

    def __init__(self, store: ObjectStore, job: str) -> None:
        self._store = store
        self._job = job
        self.looks = 0

    async def run(self) -> None:
        while True:
            await asyncio.to_thread(check_kept, self._store, self._job)
            self.looks += 1
            await asyncio.sleep(0.02)


async def pin_newest(world: World, api: Api) -> int:
    """Pins the newest checkpoint of job-1 as soon as there is one; its step. The job may be quicker: then the next."""
    while True:
        await world.until(lambda: len(world.view().checkpoints) > 0, "a checkpoint")
        step = int(world.view().checkpoints[-1].step)
        with contextlib.suppress(NotFound):
            await api.call("PinCheckpoint", job_pb2.PinCheckpointRequest(job_id="job-1", step=step, pinned=True))
            return step


def objects_of(store: ObjectStore, job: str, *folders: str) -> set[str]:
    """Keys of the job's objects, less spec and log; only those under the given folders if any."""
    root = f"jobs/{job}/"
    keys = {stat.key.removeprefix(root) for stat in store.list(root)}
    keys = {key for key in keys if not key.startswith(("events/", "snapshots/")) and key != "spec.json"}
    return {key for key in keys if not folders or any(folder in key for folder in folders)}


def units_of(store: ObjectStore, job: str) -> set[str]:
    """The folders of checkpoints and policies that are there, whole or in part."""
    return {f"jobs/{job}/{key.rsplit('/', 1)[0]}" for key in objects_of(store, job, "/policy/", "/checkpoints/")}


def units_named(view: JobView) -> set[str]:
    """The folders of checkpoints and policies that the log keeps."""
    return {prefix for prefix, _ in kept_folders(view) if prefix.startswith("jobs/")}


def _view(store: ObjectStore, job: str) -> Any:
    log = JobLog(store, job)
    log.refresh()
    return log.view
