"""`python -m quatrain.generation`: one generation replica."""

import asyncio
import tempfile
from pathlib import Path

import grpc.aio

from quatrain.config import ProcessConfig
from quatrain.generation.engines import make_engine
from quatrain.generation.service import GenerationService
from quatrain.generation.servicer import SERVICE, GenerationServicer
from quatrain.process.run import run_process
from quatrain.rpc.server.server import run_server
from quatrain.storage.folders import FolderCache
from quatrain.storage.opening import open_store
from quatrain.v1.generation_pb2_grpc import add_GenerationServiceServicer_to_server


async def serve(config: ProcessConfig) -> None:
    """Serve until told to stop; ready when the store answers. Raises InvalidInput, Unavailable."""
    with tempfile.TemporaryDirectory(prefix="generation-", ignore_cleanup_errors=True) as temporary:
        store = await asyncio.to_thread(open_store, config.storage)
        cache = FolderCache(store, config.compute.cache_dir or Path(temporary), config.compute.cache_bytes)
        engine = make_engine(config, cache.fetch)
        servicer = GenerationServicer(GenerationService(engine))

        def register(server: grpc.aio.Server) -> list[str]:
            add_GenerationServiceServicer_to_server(servicer, server)
            return [SERVICE]

        async def reach_store() -> None:
            await asyncio.to_thread(store.list, "models/", limit=1)

        watch = asyncio.create_task(engine.watch())
        try:
            await run_server(config, "generation", register, on_ready=reach_store, working=watch)
        finally:
            watch.cancel()
            await engine.close()


if __name__ == "__main__":
    run_process("generation", serve)
