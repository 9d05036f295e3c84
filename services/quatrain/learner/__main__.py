"""Entry point: `python -m quatrain.learner --server.port=0 --storage.root=FOLDER`."""

import asyncio
import os
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from quatrain.config import ProcessConfig
from quatrain.errors import Fenced
from quatrain.joblog import JobLog
from quatrain.learner.artifacts import Artifacts
from quatrain.learner.backends import Backend
from quatrain.learner.requests import Token
from quatrain.learner.service import Host, LearnerService
from quatrain.learner.servicer import LearnerServicer
from quatrain.process.model_thread import ModelThread
from quatrain.process.run import run_process
from quatrain.rpc.server.server import run_server
from quatrain.storage import ObjectStore, open_store, probe_store
from quatrain.storage.folders import FolderCache
from quatrain.v1 import learner_pb2_grpc

if TYPE_CHECKING:
    from quatrain.learner.backends.torch_backend import TorchBackend
    from quatrain.learner.group.group import Group

_NAME = "quatrain.v1.LearnerService"
# Calls that may wait for the model: an owner makes one call at a time, a takeover adds a few.
_QUEUE_SIZE = 8


async def main(config: ProcessConfig) -> None:
    """Serve until the process is told to stop."""
    store = open_store(config.storage)
    with tempfile.TemporaryDirectory(prefix="learner-", ignore_cleanup_errors=True) as temporary:
        cache_dir = config.compute.cache_dir or Path(temporary) / "cache"
        cache = FolderCache(store, cache_dir, config.compute.cache_bytes)
        artifacts = Artifacts(store, cache, Path(temporary) / "scratch")
        thread = ModelThread(_QUEUE_SIZE, stuck_after=config.compute.stuck_after)
        if config.learner.ranks == 1:
            await _serve(config, store, artifacts, thread, make_backend(config), None)
            return
        backend, group = make_group(config)
        if config.learner.rank:
            await _follow(config, store, artifacts, thread, (backend, group))
            return
        from quatrain.learner.group.leader import LeaderBackend

        await _serve(config, store, artifacts, thread, LeaderBackend(backend, group), group)


async def _serve(
    config: ProcessConfig,
    store: ObjectStore,
    artifacts: Artifacts,
    thread: ModelThread,
    backend: Backend,
    group: "Group | None",
) -> None:
    service = LearnerService(
        Host(config.learner.id, config.learner.owner_timeout),
        backend,
        artifacts,
        thread,
        log_check=lambda token: check_log(store, token),
    )

    def register(server: grpc.aio.Server) -> list[str]:
        learner_pb2_grpc.add_LearnerServiceServicer_to_server(LearnerServicer(service), server)
        return [_NAME]

    async def on_ready() -> None:
        await asyncio.to_thread(probe_store, store)
        if group is not None:
            await asyncio.to_thread(group.join)

    silence = asyncio.create_task(service.watch())
    working = _all_of(thread.watch(), *([] if group is None else [group.watch()]))
    try:
        await run_server(config, "learner", register, on_ready=on_ready, on_drain=service.hand_back, working=working)
    finally:
        silence.cancel()
        working.cancel()


async def _follow(
    config: ProcessConfig,
    store: ObjectStore,
    artifacts: Artifacts,
    thread: ModelThread,
    group: "tuple[TorchBackend, Group]",
) -> None:
    from quatrain.learner.group.follower import Follower

    joined = asyncio.Event()

    async def on_ready() -> None:
        await asyncio.to_thread(probe_store, store)
        await asyncio.to_thread(group[1].join)
        joined.set()

    async def follow() -> None:
        await joined.wait()
        await Follower(group[0], artifacts, group[1]).follow(thread)

    working = _all_of(thread.watch(), group[1].watch(), follow())
    try:
        await run_server(_without_api(config), "learner", lambda server: [], on_ready=on_ready, working=working)
    finally:
        working.cancel()


def _without_api(config: ProcessConfig) -> ProcessConfig:
    """Return the configuration of a rank that nobody calls; of those of a host only the first has ports for probes."""
    from quatrain.learner.group.place import Launcher

    probes = {"health_port": None, "metrics_port": None, "port_file": None} if Launcher.here().local_rank else {}
    return config.model_copy(update={"server": config.server.model_copy(update={"port": 0, **probes})})


def _all_of(*loops: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
    """Return one task that ends with the first error of several that never end."""

    async def gathered() -> None:
        await asyncio.gather(*loops)

    return asyncio.create_task(gathered())


def make_backend(config: ProcessConfig) -> Backend:
    """Return the backend that `learner.backend` names."""
    if config.learner.backend == "fake":
        from quatrain.learner.backends.fake import FakeBackend

        return FakeBackend()
    _before_torch()
    # Imported here, so that a fake learner starts without loading torch.
    from quatrain.learner.backends.torch_backend import TorchBackend

    return TorchBackend(config.compute.device, config.compute.threads)


def make_group(config: ProcessConfig) -> "tuple[TorchBackend, Group]":
    """Return the backend of one rank and the group that it will join. Raises InvalidInput for a wrong configuration."""
    _before_torch()
    from quatrain.learner.backends.torch_backend import TorchBackend
    from quatrain.learner.group.group import Group
    from quatrain.learner.group.place import Launcher, place_of
    from quatrain.models.device import pick_device

    device = pick_device(config.compute.device)
    name = f"cuda:{Launcher.here().local_rank}" if device.type == "cuda" else "cpu"
    group = Group(place_of(config), device)
    return TorchBackend(name, config.compute.threads, group), group


def _before_torch() -> None:
    # cuBLAS is reproducible only with this, and reads it when it is loaded.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def check_log(store: ObjectStore, token: Token) -> None:
    """Raise Fenced if the job's log knows a newer owner or attempt than `token`."""
    log = JobLog(store, token.job)
    log.refresh()
    if (log.view.epoch, log.view.attempt) > token.precedence:
        raise Fenced(
            f"{token} is superseded: the log of the job is at epoch {log.view.epoch} attempt {log.view.attempt}."
        )


if __name__ == "__main__":
    run_process("learner", main)
