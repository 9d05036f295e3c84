"""The reward service: `python -m quatrain.reward --server.port=50052 --storage.root=DIR`."""

import asyncio
import tempfile
from functools import partial
from pathlib import Path

import grpc.aio

from quatrain.config import ProcessConfig
from quatrain.process.model_thread import ModelThread
from quatrain.process.run import run_process
from quatrain.reward.backends.functions import FunctionBackend, FunctionSettings
from quatrain.reward.backends.models import ModelBackend, ModelSettings
from quatrain.reward.backends.remote import RemoteBackend
from quatrain.reward.backends.sandbox import CodeLimits
from quatrain.reward.service import Backends, RewardService
from quatrain.reward.servicer import RewardServicer
from quatrain.rpc.client.channel import channel_tls
from quatrain.rpc.server.server import run_server
from quatrain.storage import ObjectStore, open_store
from quatrain.storage.folders import FolderCache
from quatrain.v1 import reward_pb2_grpc

SERVICE = "quatrain.v1.RewardService"


def build_service(
    config: ProcessConfig, store: ObjectStore, scratch: Path, thread: ModelThread | None = None
) -> RewardService:
    """Build the service as configured. `scratch` is a folder of this process's own; `thread` owns the reward models."""
    folders = FolderCache(store, config.compute.cache_dir or scratch / "models", config.compute.cache_bytes)
    models = ModelSettings(
        device=config.compute.device,
        threads=config.compute.threads,
        memory_bytes=config.reward.memory_bytes,
        queue_size=config.reward.queue_size,
    )
    backends = Backends(
        ModelBackend(folders, models, thread), build_functions(config, store), RemoteBackend(channel_tls(config))
    )
    return RewardService(folders, backends)


def build_functions(config: ProcessConfig, store: ObjectStore) -> FunctionBackend:
    """Build the backend of reward functions as configured."""
    settings = FunctionSettings(
        allow_code=config.reward.allow_code,
        queue_size=config.reward.queue_size,
        packages=config.reward.packages,
        code_limits=CodeLimits(config.reward.code_memory_bytes, config.reward.code_network == "allow"),
    )
    return FunctionBackend(store, settings)


def register(service: RewardService, server: grpc.aio.Server) -> list[str]:
    """Add the servicer and return the names that health and reflection list."""
    servicer = RewardServicer(service)
    reward_pb2_grpc.add_RewardServiceServicer_to_server(servicer, server)
    return [SERVICE]


async def serve(config: ProcessConfig) -> None:
    """Serve until the process is told to stop. Raises InvalidInput, Unavailable."""
    store = open_store(config.storage)
    await build_functions(config, store).check_sandbox()
    with tempfile.TemporaryDirectory(prefix="reward-", ignore_cleanup_errors=True) as scratch:
        thread = ModelThread(config.reward.queue_size, name="reward-model", stuck_after=config.compute.stuck_after)
        service = build_service(config, store, Path(scratch), thread)

        async def reach_store() -> None:
            await asyncio.to_thread(store.list, "models/", limit=1)

        watch = asyncio.create_task(thread.watch())
        try:
            await run_server(config, "reward", partial(register, service), on_ready=reach_store, working=watch)
        finally:
            watch.cancel()
            await service.close()


if __name__ == "__main__":
    run_process("reward", serve)
