"""A learner of two real processes, and the same training done by one, to compare with."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tests.integration.learner.calls import SERVICE
from tests.unit.learner.stages import never

from quatrain.digests import sha256_hex
from quatrain.learner.backends import Trainer
from quatrain.learner.requests import OpenRequest
from quatrain.local.ports import free_port
from quatrain.refs import ModelRef, ObjectRef
from quatrain.rpc.client.channel import open_channel
from quatrain.rpc.streams import result_of
from quatrain.storage import ObjectStore
from quatrain.storage.folders import FolderCache
from quatrain.v1 import common_pb2, learner_pb2, learner_pb2_grpc

ROOT = Path(__file__).parents[3]
START_SECONDS = 120.0
STOP_SECONDS = 20.0
RANK_TIMEOUT = 30.0
Metrics = dict[str, float | None]
Weights = dict[str, torch.Tensor]


@dataclass
class RankedLearner:
    """Two processes, their store and their logs, all under `folder`."""

    folder: Path
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def start(self) -> None:
        rendezvous = f"127.0.0.1:{free_port()}"
        for rank in (0, 1):
            command = [
                *(sys.executable, "-m", "quatrain.learner", f"--learner.id=learner-{rank}", "--compute.threads=1"),
                *("--learner.ranks=2", f"--learner.rank={rank}", f"--learner.rendezvous={rendezvous}"),
                *(f"--learner.rank_timeout={RANK_TIMEOUT}", f"--storage.root={self.folder / 'store'}"),
                *(f"--server.port_file={self._port_file(rank)}", "--server.health_port=0", "--server.shutdown_grace=1"),
            ]
            with self._log(rank).open("wb") as log:
                self.processes.append(subprocess.Popen(command, env=_environment(), stdout=log, stderr=log))
        self._await_ports(0, 1)

    def _await_ports(self, *ranks: int) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not all(self._port_file(rank).exists() for rank in ranks):
            assert all(process.poll() is None for process in self.processes), self.logs()
            assert time.monotonic() < deadline, f"the ranks do not serve\n{self.logs()}"
            time.sleep(0.05)

    def start_by_torchrun(self) -> None:
        """Both ranks as children of one launcher, which says their places by the environment."""
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1"),
            *(f"--master-port={free_port()}", "-m", "quatrain.learner", f"--storage.root={self.folder / 'store'}"),
            *("--compute.threads=1", f"--server.port_file={self._port_file(0)}", "--server.health_port=0"),
        ]
        with self._log(0).open("wb") as log:
            self.processes.append(subprocess.Popen(command, env=_environment(), stdout=log, stderr=log))
        self._await_ports(0)

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def kill(self, rank: int) -> None:
        os.kill(self.processes[rank].pid, signal.SIGKILL)

    def ports(self, rank: int) -> dict[str, int]:
        document: dict[str, int] = json.loads(self._port_file(rank).read_text())
        return document

    def logs(self) -> str:
        logs = [(path.name, path.read_text(errors="replace")) for path in sorted(self.folder.glob("rank-*.log"))]
        return "\n".join(f"--- {name}\n{text}" for name, text in logs)

    @contextlib.asynccontextmanager
    async def stub(self) -> AsyncIterator[Any]:
        async with open_channel(f"127.0.0.1:{self.ports(0)['port']}", service=SERVICE) as channel:
            yield learner_pb2_grpc.LearnerServiceStub(channel)

    def _port_file(self, rank: int) -> Path:
        return self.folder / f"ports-{rank}.json"

    def _log(self, rank: int) -> Path:
        return self.folder / f"rank-{rank}.log"


@contextlib.contextmanager
def ranked_learner(folder: Path) -> Iterator[RankedLearner]:
    """Both ranks serve; they are killed at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    learner = RankedLearner(folder)
    try:
        learner.start()
        yield learner
    finally:
        learner.stop()


def _environment() -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in ("lib", "services", "orchestrator")),
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_WAIT_POLICY": "passive",
    }


def message_of(request: OpenRequest) -> learner_pb2.OpenRequest:
    """The call that opens the request."""

    def folder(ref: ModelRef | None) -> common_pb2.ModelRef | None:
        return None if ref is None else common_pb2.ModelRef(uri=ref.uri, digest=ref.digest)

    return learner_pb2.OpenRequest(
        token=token_of(request),
        stage=request.stage.proto,
        config_json=request.config_json,
        model=folder(request.model),
        value_model=folder(request.value_model),
        total_steps=request.total_steps,
        seed=request.seed,
        data=_object(request.data),
        held_out=_object(request.held_out),
        checkpoint=_object(request.checkpoint),
        temperature=request.temperature,
    )


def token_of(request: OpenRequest) -> common_pb2.OwnerToken:
    return common_pb2.OwnerToken(job=request.token.job, epoch=request.token.epoch, attempt=request.token.attempt)


def step_request(store: ObjectStore, request: OpenRequest, step: int, batch: bytes | None) -> learner_pb2.StepRequest:
    named = None if batch is None else _object(put(store, f"batches/{sha256_hex(batch)}", batch))
    return learner_pb2.StepRequest(token=token_of(request), step=step, batch=named)


async def train(
    learner: RankedLearner, store: ObjectStore, request: OpenRequest, batches: list[bytes | None], first: int = 1
) -> tuple[list[Metrics], Weights, ObjectRef]:
    """Opens the request and trains a step on each batch: metrics, weights, and the checkpoint that was saved last."""
    metrics = []
    async with learner.stub() as stub:
        await stub.Open(message_of(request), timeout=60)
        for step, batch in enumerate(batches, first):
            result = (await result_of(stub.Step(step_request(store, request, step, batch)))).result
            values = {value.name: value.value if value.HasField("value") else None for value in result.metrics}
            metrics.append(timeless(values))
        last = first + len(batches) - 1
        saved = (await result_of(stub.Save(learner_pb2.SaveRequest(token=token_of(request), step=last)))).manifest
        await stub.Close(learner_pb2.CloseRequest(token=token_of(request)), timeout=10)
    checkpoint = ObjectRef(saved.key, saved.sha256, saved.size)
    return metrics, weights_of(checkpoint_folder(store, learner.folder, checkpoint)), checkpoint


def train_alone(trainer: Trainer, batches: list[bytes | None], folder: Path) -> tuple[list[Metrics], Weights]:
    """The same in this process."""
    metrics = [
        timeless(dict(trainer.train(step, batch, never).metrics))
        for step, batch in enumerate(batches, trainer.step + 1)
    ]
    folder.mkdir(parents=True)
    trainer.save(folder)
    return metrics, weights_of(folder)


def checkpoint_folder(store: ObjectStore, folder: Path, checkpoint: ObjectRef) -> Path:
    prefix = checkpoint.key.rpartition("/")[0]
    return FolderCache(store, folder / "fetched", 1 << 30).fetch(f"store:{prefix}", checkpoint.sha256)


def weights_of(folder: Path) -> Weights:
    """Models and optimizers; the random state is not compared, it belongs to the process."""
    return {
        f"{path.stem}/{name}": tensor
        for path in sorted(folder.glob("*.safetensors"))
        if path.stem != "random"
        for name, tensor in load_file(path).items()
    }


def timeless(metrics: Metrics) -> Metrics:
    return {name: value for name, value in metrics.items() if not name.startswith("throughput")}


def put(store: ObjectStore, key: str, data: bytes) -> ObjectRef:
    store.put_if_absent(key, data)
    return ObjectRef(key, sha256_hex(data), len(data))


async def await_running(stub: Any, deadline: float = 60.0) -> None:
    """Waits until a step runs."""
    async with asyncio.timeout(deadline):
        while True:
            status = await stub.GetStatus(learner_pb2.GetStatusRequest(), timeout=10)
            if status.running_step:
                return
            await asyncio.sleep(0.01)


def _object(source: ObjectRef | None) -> common_pb2.ObjectRef | None:
    return None if source is None else common_pb2.ObjectRef(key=source.key, sha256=source.sha256, size=source.size)
