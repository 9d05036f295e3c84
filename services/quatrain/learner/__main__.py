"""Entry point: `python -m quatrain.learner --server.port=0 --storage.root=FOLDER`."""

import asyncio
import os
import tempfile
from pathlib import Path

import grpc

from quatrain.config import ProcessConfig
from quatrain.errors import Fenced
from quatrain.joblog import JobLog
from quatrain.learner.artefacts import Artefacts
from quatrain.learner.backends import Backend
from quatrain.learner.plans import Token
from quatrain.learner.service import Host, LearnerService
from quatrain.learner.servicer import LearnerServicer
from quatrain.rpc.process import run_process
from quatrain.rpc.server import run_server
from quatrain.rpc.worker import ModelThread
from quatrain.storage import ObjectStore, open_store, probe_store
from quatrain.storage.folders import FolderCache
from quatrain.v1 import learner_pb2_grpc

_NAME = "quatrain.v1.LearnerService"
# Calls that may wait for the model: one owner makes one call at a time, a takeover adds a few.
_QUEUE_SIZE = 8


async def main(config: ProcessConfig) -> None:
    """Serves until the process is told to stop."""
    store = open_store(config.storage)
    with tempfile.TemporaryDirectory(prefix="learner-", ignore_cleanup_errors=True) as temporary:
        cache_dir = config.compute.cache_dir or Path(temporary) / "cache"
        cache = FolderCache(store, cache_dir, config.compute.cache_bytes)
        thread = ModelThread(_QUEUE_SIZE, stuck_after=config.compute.stuck_after)
        service = LearnerService(
            Host(config.learner.id, config.learner.owner_timeout),
            make_backend(config),
            Artefacts(store, cache, Path(temporary) / "scratch"),
            thread,
            log_check=lambda token: check_log(store, token),
        )

        def register(server: grpc.aio.Server) -> list[str]:
            learner_pb2_grpc.add_LearnerServiceServicer_to_server(LearnerServicer(service), server)
            return [_NAME]

        async def on_ready() -> None:
            await asyncio.to_thread(probe_store, store)

        watches = [asyncio.create_task(watch) for watch in (service.watch(), thread.watch())]
        try:
            await run_server(
                config, "learner", register, on_ready=on_ready, on_drain=service.hand_back, working=watches[1]
            )
        finally:
            for watch in watches:
                watch.cancel()


def make_backend(config: ProcessConfig) -> Backend:
    """The backend that `learner.backend` names."""
    if config.learner.backend == "fake":
        from quatrain.learner.backends.fake import FakeBackend

        return FakeBackend()
    # cuBLAS is reproducible only with this, and reads it when it is loaded.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Imported here, so that a fake learner starts without loading torch.
    from quatrain.learner.backends.torch_backend import TorchBackend

    return TorchBackend(config.compute.device, config.compute.threads)


def check_log(store: ObjectStore, token: Token) -> None:
    """Raises Fenced when the job's log knows a newer owner or attempt than `token`."""
    log = JobLog(store, token.job)
    log.refresh()
    if (log.view.epoch, log.view.attempt) > token.rank:
        raise Fenced(
            f"{token} is superseded: the log of the job is at epoch {log.view.epoch} attempt {log.view.attempt}."
        )


if __name__ == "__main__":
    run_process("learner", main)
