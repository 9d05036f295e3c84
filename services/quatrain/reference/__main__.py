"""`python -m quatrain.reference`: one reference replica."""

import asyncio
import tempfile
from pathlib import Path

import grpc.aio

from quatrain.config import ProcessConfig
from quatrain.process.run import run_process
from quatrain.reference.backends.transformers import TransformersBackend
from quatrain.reference.service import ReferenceService
from quatrain.reference.servicer import SERVICE, ReferenceServicer
from quatrain.rpc.server.server import run_server
from quatrain.storage.folders import FolderCache
from quatrain.storage.opening import open_store
from quatrain.v1.reference_pb2_grpc import add_ReferenceServiceServicer_to_server


async def serve(config: ProcessConfig) -> None:
    """Serve until told to stop; ready when the store answers. Raises InvalidInput, Unavailable."""
    with tempfile.TemporaryDirectory(prefix="reference-", ignore_cleanup_errors=True) as temporary:
        store = await asyncio.to_thread(open_store, config.storage)
        cache = FolderCache(store, config.compute.cache_dir or Path(temporary), config.compute.cache_bytes)
        backend = TransformersBackend(
            cache.fetch,
            device=config.compute.device,
            threads=config.compute.threads,
            memory_bytes=config.reference.memory_bytes,
            queue_size=config.reference.queue_size,
            stuck_after=config.compute.stuck_after,
        )
        servicer = ReferenceServicer(ReferenceService(backend))

        def register(server: grpc.aio.Server) -> list[str]:
            add_ReferenceServiceServicer_to_server(servicer, server)
            return [SERVICE]

        async def reach_store() -> None:
            await asyncio.to_thread(store.list, "models/", limit=1)

        watch = asyncio.create_task(backend.watch())
        try:
            await run_server(config, "reference", register, on_ready=reach_store, working=watch)
        finally:
            watch.cancel()
            await backend.close()


if __name__ == "__main__":
    run_process("reference", serve)
