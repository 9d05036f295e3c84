"""The rollout worker process: `python -m quatrain.orchestrator.rollout`. Any number of them may run."""

import asyncio

import grpc

from quatrain.concurrency import cancel_and_wait
from quatrain.config import ProcessConfig
from quatrain.orchestrator.peers.service_clients import ServiceClients
from quatrain.orchestrator.rollout.worker import RolloutWorker
from quatrain.process.run import run_process
from quatrain.queue import open_queue
from quatrain.rpc.client.channel import channel_tls
from quatrain.rpc.client.targets import PoolOptions, TargetPool
from quatrain.rpc.server.server import run_server
from quatrain.storage import open_store


async def serve(config: ProcessConfig) -> None:
    """Work until SIGTERM; the gRPC port offers health only."""
    section = config.rollout
    pools = PoolOptions(tls=channel_tls(config))
    queue = open_queue(config.queue)
    await queue.check()
    services = ServiceClients(
        generation=TargetPool(section.generation, service="quatrain.v1.GenerationService", options=pools),
        reward=TargetPool(section.reward, service="quatrain.v1.RewardService", options=pools),
        reference=TargetPool(section.reference, service="quatrain.v1.ReferenceService", options=pools),
    )
    worker = RolloutWorker(
        name=section.id,
        pool=section.pool,
        concurrency=section.concurrency,
        idle=section.idle,
        store=open_store(config.storage),
        queue=queue,
        services=services,
        inline_bytes=section.inline_bytes,
    )

    def register(server: grpc.aio.Server) -> list[str]:
        return []

    async def lease_no_more() -> None:
        worker.stop()

    working = asyncio.create_task(worker.run())
    try:
        await run_server(config, "rollout", register, on_drain=lease_no_more, working=working)
    finally:
        worker.stop()
        await asyncio.wait({working}, timeout=config.server.shutdown_grace)
        await cancel_and_wait(working)
        await services.close()
        await queue.close()


if __name__ == "__main__":
    run_process("rollout", serve)
