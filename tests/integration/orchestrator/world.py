"""A whole deployment inside one event loop: real gRPC servers with fake models, memory store and queue, schedulers.

The fakes agree on logprobs (all of them say -1), so that the probe before the first step passes.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
from safetensors.numpy import save_file
from tests.integration.orchestrator.fakes import AgreeingEngine, AgreeingReference, FragileLearner, ScriptedReward
from tests.unit.text.folders import symbol_tokenizer, write_folder

from quatrain.config import ProcessConfig, ServerConfig, SourcesConfig, StorageConfig
from quatrain.config.schema import RolloutConfig
from quatrain.digests import sha256_hex
from quatrain.generation.service import GenerationService
from quatrain.generation.servicer import GenerationServicer
from quatrain.joblog import Event, JobLog, JobView
from quatrain.joblog.payloads import payload_from
from quatrain.learner.artifacts import Artifacts
from quatrain.learner.backends.fake import FakeBackend as FakeLearnerBackend
from quatrain.learner.service import Host, LearnerService
from quatrain.orchestrator.job.context import OrchestratorContext
from quatrain.orchestrator.ownership.scheduler import Scheduler
from quatrain.orchestrator.peers.learner_session import OpenCall, OwnerToken
from quatrain.orchestrator.peers.learners import LearnerPool
from quatrain.orchestrator.peers.service_clients import ServiceClients
from quatrain.orchestrator.rollout.worker import RolloutWorker
from quatrain.orchestrator.submission.sources import Sources
from quatrain.orchestrator.submission.step_bounds import StepBounds
from quatrain.orchestrator.submission.submit import Submission, Submitter
from quatrain.process.model_thread import ModelThread
from quatrain.queue.memory import MemoryQueue
from quatrain.reference.service import ReferenceService
from quatrain.reference.servicer import ReferenceServicer
from quatrain.refs import ModelRef
from quatrain.reward.service import Backends, RewardService
from quatrain.reward.servicer import RewardServicer
from quatrain.rpc.client.targets import TargetPool
from quatrain.rpc.server.server import RpcServer
from quatrain.stages import PPO
from quatrain.storage import ObjectStore
from quatrain.storage.folders import FolderCache, upload_model_folder
from quatrain.storage.memory import MemoryStore
from quatrain.v1 import generation_pb2_grpc, learner_pb2_grpc, reference_pb2_grpc, reward_pb2_grpc

INLINE_BYTES = RolloutConfig().inline_bytes
SYMBOLS = "abcdef"
JOB_SECONDS = 20.0


def write_model(
    folder: Path,
    architecture: str = "Qwen2ForCausalLM",
    eos: str | None = "f",
    symbols: str = SYMBOLS,
    positions: int = 64,
    vocabulary: int | None = None,
) -> Path:
    """A model folder that no fake looks into, with one token a letter; `f` ends a sequence."""
    tokenizer_config = {} if eos is None else {"eos_token": eos}
    config = {
        "model_type": "qwen2",
        "architectures": [architecture],
        "vocab_size": vocabulary or len(symbols),
        "max_position_embeddings": positions,
    }
    write_folder(folder, symbol_tokenizer(symbols), tokenizer_config, config)
    head = {"score.weight": np.zeros((1, 2), dtype=np.float32)} if "Classification" in architecture else {}
    save_file({"weight": np.zeros((2, 2), dtype=np.float32), **head}, folder / "model.safetensors")
    return folder


def put_rows(store: ObjectStore, rows: list[dict[str, Any]]) -> str:
    """Uploads rows as JSONL; the URI."""
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    digest = sha256_hex(data)
    store.put_if_absent(f"data/sha256/{digest}", data)
    return f"sha256:{digest}"


def open_call(job: str) -> OpenCall:
    """What an owner asks a learner for that will refuse it, or never hear it."""
    base = ModelRef("sha256:0", "0")
    return OpenCall(
        OwnerToken(job, 1, 1), PPO, "{}", base, base, 1, 1, "float32", True, exact_logprobs=True, temperature=1.0
    )


@dataclass
class World:
    """One deployment inside the test. Workers and schedulers are started by the test or by `deployment`."""

    root: Path
    store: ObjectStore = field(default_factory=MemoryStore)
    queue: MemoryQueue = field(default_factory=MemoryQueue)
    engine: AgreeingEngine = field(default_factory=AgreeingEngine)
    reward: ScriptedReward = field(default_factory=ScriptedReward)
    learners: list[FragileLearner] = field(default_factory=list)
    schedulers: list[Scheduler] = field(default_factory=list)
    addresses: dict[str, str] = field(default_factory=dict)
    learner_addresses: list[str] = field(default_factory=list)
    model_uri: str = ""
    bounds: StepBounds = field(default_factory=lambda: StepBounds.of(ProcessConfig()))
    _stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    async def start(self, learners: int, job_slots: int = 4) -> None:
        folder = await asyncio.to_thread(upload_model_folder, self.store, write_model(self.root / "base"))
        self.model_uri = f"sha256:{folder.digest}"
        self.engine.job_slots = job_slots
        generation = GenerationService(self.engine)
        self._stack.push_async_callback(self.engine.close)
        backend = AgreeingReference()
        reference = ReferenceService(backend)
        self._stack.push_async_callback(backend.close)
        reward = RewardService(self.folders("reward"), Backends(self.reward, self.reward, self.reward))
        self.addresses["generation"] = await self.serve(
            "GenerationService",
            lambda server: generation_pb2_grpc.add_GenerationServiceServicer_to_server(
                GenerationServicer(generation), server
            ),
        )
        self.addresses["reference"] = await self.serve(
            "ReferenceService",
            lambda server: reference_pb2_grpc.add_ReferenceServiceServicer_to_server(
                ReferenceServicer(reference), server
            ),
        )
        self.addresses["reward"] = await self.serve(
            "RewardService",
            lambda server: reward_pb2_grpc.add_RewardServiceServicer_to_server(RewardServicer(reward), server),
        )
        for number in range(learners):
            await self._start_learner(number)

    async def _start_learner(self, number: int) -> None:
        def make() -> LearnerService:
            root = self.root / f"learner-{number}"
            artifacts = Artifacts(self.store, FolderCache(self.store, root / "cache", 2**30), root / "scratch")
            return LearnerService(Host(f"learner-{number}", 60.0), FakeLearnerBackend(), artifacts, ModelThread(8))

        learner = FragileLearner(make)
        self.learners.append(learner)
        self.learner_addresses.append(
            await self.serve(
                "LearnerService",
                lambda server: learner_pb2_grpc.add_LearnerServiceServicer_to_server(learner, server),
            )
        )

    async def serve(self, service: str, add: Callable[[grpc.aio.Server], None], *, public: bool = False) -> str:
        def register(server: grpc.aio.Server) -> list[str]:
            add(server)
            return [f"quatrain.v1.{service}"]

        server = RpcServer(ServerConfig(shutdown_grace=0.0), "world", register, public=public)
        await server.start()
        self._stack.push_async_callback(server.stop)
        await server.serve()
        return f"127.0.0.1:{server.ports.port}"

    def folders(self, name: str) -> FolderCache:
        return FolderCache(self.store, self.root / "folders" / name, 2**30)

    def services(self) -> ServiceClients:
        services = ServiceClients(
            *(
                TargetPool(self.addresses[name], service=f"quatrain.v1.{name.title()}Service")
                for name in ("generation", "reward", "reference")
            )
        )
        self._stack.push_async_callback(services.close)
        return services

    def start_worker(
        self,
        name: str = "worker",
        *,
        services: ServiceClients | None = None,
        idle: float = 6.0,
        inline_bytes: int = INLINE_BYTES,
    ) -> RolloutWorker:
        worker = RolloutWorker(
            name=name,
            pool="default",
            concurrency=2,
            idle=idle,
            store=self.store,
            queue=self.queue,
            services=services or self.services(),
            inline_bytes=inline_bytes,
        )
        self.keep(worker.run())
        return worker

    def start_scheduler(
        self, name: str = "owner", *, store: ObjectStore | None = None, max_jobs: int = 64
    ) -> Scheduler:
        store = store or self.store
        context = OrchestratorContext(
            name,
            store,
            self.queue,
            self.services(),
            LearnerPool(self.learner_addresses),
            FolderCache(store, self.root / "folders" / name, 2**30),
        )
        scheduler = Scheduler(context, lease=0.5, poll=0.05, max_jobs=max_jobs)
        self.schedulers.append(scheduler)
        self._stack.push_async_callback(scheduler.stop)
        self.keep(scheduler.run())
        return scheduler

    def keep(self, work: Any) -> "asyncio.Task[None]":
        """Runs beside the test; an error of it is the test's."""
        task: asyncio.Task[None] = asyncio.create_task(work)

        async def end() -> None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

        self._stack.push_async_callback(end)
        return task

    def submitter(self, *, sources: Sources | None = None, local_files: bool = False) -> Submitter:
        """Without sources no bucket is open."""
        sources = sources or Sources(SourcesConfig(), StorageConfig(), self.root)
        return Submitter(self.store, self.folders("submitter"), self.services(), sources, local_files, self.bounds)

    def spec(self, prompts: int = 8, **ppo: Any) -> dict[str, Any]:
        """A PPO-only job of three small steps."""
        rows = [{"prompt": SYMBOLS[i % 4] + SYMBOLS[(i + 1) % 4], "topic": f"t{i}"} for i in range(prompts)]
        return {
            "name": "small",
            "model": {"uri": self.model_uri},
            "reward": {"functions": [{"path": "rewards:count"}]},
            "ppo": {
                "prompts": put_rows(self.store, rows),
                "steps": 3,
                "prompts_per_step": 4,
                "chunk_size": 2,
                "generation": {"max_new_tokens": 6},
                **ppo,
            },
            "checkpoint": {"every_steps": 2},
        }

    async def submit(self, spec: dict[str, Any], job: str = "job-1") -> str:
        return (await self.submitter().submit(Submission(document=spec, owner="local", job_id=job))).job

    @property
    def calm(self) -> ObjectStore:
        """The store as the test looks at it, whatever goes wrong for others."""
        calm: ObjectStore = getattr(self.store, "calm", self.store)
        return calm

    def log(self, job: str = "job-1") -> JobLog:
        log = JobLog(self.calm, job)
        log.refresh()
        return log

    def view(self, job: str = "job-1") -> JobView:
        return self.log(job).view

    async def ask(self, kind: str, data: dict[str, Any], job: str = "job-1") -> None:
        """Appends an intent as the API does: `kind` is the type of its event."""
        event = Event(payload_from(kind, data), "somebody")
        await asyncio.to_thread(self.log(job).append_decided, lambda view: event)

    def events(self, job: str = "job-1", kind: str = "") -> list[Event]:
        events = JobLog(self.calm, job).refresh()
        return [event for event in events if not kind or event.type == kind]

    async def until(self, condition: Callable[[], bool], what: str, seconds: float = JOB_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{what} within {seconds:g} s"
            await asyncio.sleep(0.02)

    async def end_of(self, job: str = "job-1", seconds: float = JOB_SECONDS) -> JobView:
        """The view after the terminal event."""
        log = JobLog(self.calm, job)

        def finished() -> bool:
            log.refresh()
            return log.view.finished

        try:
            await self.until(finished, "the job did not end", seconds)
        except AssertionError as error:
            view = log.view
            state = f"{view.state} ({view.reason}), step {view.step}, {view.conditions}"
            raise AssertionError(f"{error}: {state}") from error
        return log.view

    async def close(self) -> None:
        await self._stack.aclose()


@contextlib.asynccontextmanager
async def deployment(
    root: Path,
    *,
    learners: int = 1,
    workers: int = 1,
    schedulers: int = 1,
    store: ObjectStore | None = None,
    job_slots: int = 4,
) -> AsyncIterator[World]:
    """A running world; the first scheduler is called owner-0."""
    world = World(root, store or MemoryStore())
    try:
        await world.start(learners, job_slots)
        for number in range(workers):
            world.start_worker(f"worker-{number}")
        for number in range(schedulers):
            world.start_scheduler(f"owner-{number}")
        yield world
    finally:
        await world.close()


def run(work: Callable[[], Awaitable[None]], limit: float = 60.0) -> None:
    """Run a test's coroutine with a time limit."""

    async def bounded() -> None:
        async with asyncio.timeout(limit):
            await work()

    asyncio.run(bounded())
