"""The orchestrator process: `python -m quatrain.orchestrator --server.port=50050`. Serves the job API and owns jobs."""

import asyncio
import tempfile
from pathlib import Path

import grpc

from quatrain.concurrency import cancel_and_wait
from quatrain.config import ProcessConfig, ready_folder
from quatrain.orchestrator.api.access import ROLES
from quatrain.orchestrator.api.artifact_servicer import ArtifactServicer
from quatrain.orchestrator.api.job_servicer import JobServicer
from quatrain.orchestrator.api.reading import JobReader
from quatrain.orchestrator.api.uploads import Uploads
from quatrain.orchestrator.job.context import OrchestratorContext
from quatrain.orchestrator.ownership.pool_metrics import PoolMetrics
from quatrain.orchestrator.ownership.scheduler import Scheduler
from quatrain.orchestrator.peers.learners import LearnerPool
from quatrain.orchestrator.peers.service_clients import ServiceClients
from quatrain.orchestrator.retention.sweep import Sweeper
from quatrain.orchestrator.submission.sources import Sources
from quatrain.orchestrator.submission.step_bounds import StepBounds
from quatrain.orchestrator.submission.submit import Submitter
from quatrain.process.run import run_process
from quatrain.process.scratch import own_folder
from quatrain.queue import open_queue
from quatrain.rpc.client.channel import channel_tls
from quatrain.rpc.client.targets import PoolOptions, TargetPool
from quatrain.rpc.server.security import check_exposure
from quatrain.rpc.server.server import run_server
from quatrain.storage import open_store, probe_store
from quatrain.storage.folders import FolderCache
from quatrain.v1 import artifact_pb2_grpc, job_pb2_grpc

JOB_SERVICE = "quatrain.v1.JobService"
ARTIFACT_SERVICE = "quatrain.v1.ArtifactService"


async def serve(config: ProcessConfig, kept: Path, scratch: Path) -> None:
    """Run until SIGTERM. `kept` is the folder of what the next process may go on with: model copies and uploads."""
    check_exposure(config, "orchestrator", public=True)
    section = config.orchestrator
    tls = channel_tls(config)
    pools = PoolOptions(tls=tls)
    store = open_store(config.storage)
    await asyncio.to_thread(probe_store, store)
    queue = open_queue(config.queue)
    await queue.check()
    services = ServiceClients(
        generation=TargetPool(section.generation, service="quatrain.v1.GenerationService", options=pools),
        reward=TargetPool(section.reward, service="quatrain.v1.RewardService", options=pools),
        reference=TargetPool(section.reference, service="quatrain.v1.ReferenceService", options=pools),
    )
    folders = FolderCache(store, kept / "folders", config.compute.cache_bytes)
    sources = Sources(config.sources, config.storage, scratch, hub_cache=kept / "hub")
    learners = LearnerPool(config.learner.targets, tls)
    context = OrchestratorContext(section.id, store, queue, services, learners, folders)
    bounds = StepBounds.of(config)
    scheduler = Scheduler(context, lease=section.lease, poll=section.poll, pool=section.pool)
    jobs = JobServicer(
        store=store,
        reader=JobReader(store),
        submitter=Submitter(store, folders, services, sources, section.local_files, bounds, section.pool),
        poll=section.poll,
        conditions=scheduler.conditions,
    )
    uploads = Uploads(store, kept, section.max_upload_bytes)
    artifacts = ArtifactServicer(store, uploads, sources, scratch)
    sweeper = Sweeper(store, section.id, section.sweep, uploads.remove_abandoned)

    def register(server: grpc.aio.Server) -> list[str]:
        job_pb2_grpc.add_JobServiceServicer_to_server(jobs, server)
        artifact_pb2_grpc.add_ArtifactServiceServicer_to_server(artifacts, server)
        return [JOB_SERVICE, ARTIFACT_SERVICE]

    async def end_watches() -> None:
        jobs.stopping.set()

    working = asyncio.create_task(_work(scheduler, sweeper, PoolMetrics(scheduler)))
    try:
        await run_server(config, "orchestrator", register, roles=ROLES, on_drain=end_watches, working=working)
    finally:
        sources.close()
        await cancel_and_wait(working)
        await scheduler.stop()
        await services.close()
        await queue.close()


async def _work(scheduler: Scheduler, sweeper: Sweeper, pool_metrics: PoolMetrics) -> None:
    await asyncio.gather(scheduler.run(), sweeper.run(), pool_metrics.run())


async def main(config: ProcessConfig) -> None:
    """Give the process its scratch folders and serve."""
    cache = config.compute.cache_dir
    kept = Path(tempfile.gettempdir()) if cache is None else ready_folder(cache, "compute.cache_dir")
    with own_folder(kept) as scratch:
        await serve(config, cache or scratch, scratch)


if __name__ == "__main__":
    run_process("orchestrator", main)
