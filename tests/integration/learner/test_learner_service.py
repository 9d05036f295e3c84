"""The learner over real gRPC: as configured, with its own interceptors, and as a process."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
from tests.integration.learner.calls import SERVICE, open_request, owner, put_batch, put_model, refusal, run

from quatrain.batches import read_tokens
from quatrain.config import ServerConfig
from quatrain.errors import Fenced, InvalidInput, LearnerBusy, WrongState
from quatrain.joblog import Event, JobLog, create_job
from quatrain.joblog.payloads import OwnerTaken
from quatrain.learner.__main__ import check_log
from quatrain.learner.artifacts import Artifacts
from quatrain.learner.backends.torch_backend import TorchBackend
from quatrain.learner.service import Host, LearnerService
from quatrain.learner.servicer import LearnerServicer
from quatrain.models.loading import load_causal_lm
from quatrain.process.model_thread import ModelThread
from quatrain.rpc.client.channel import open_channel
from quatrain.rpc.server.server import RpcServer
from quatrain.rpc.streams import result_of
from quatrain.rpc.tensors import from_ragged_floats, to_ragged_ints
from quatrain.storage import ObjectStore
from quatrain.storage.folders import FolderCache
from quatrain.storage.local import LocalStore
from quatrain.storage.memory import MemoryStore
from quatrain.v1 import learner_pb2, learner_pb2_grpc


@contextlib.asynccontextmanager
async def learner_stub(store: ObjectStore, folder: Path) -> AsyncIterator[Any]:
    """A served learner on the given store, and a stub of it."""
    artifacts = Artifacts(store, FolderCache(store, folder / "cache", 1 << 30), folder / "scratch")
    thread = ModelThread(8)
    service = LearnerService(
        Host("learner-0", 60.0),
        TorchBackend("cpu", 1),
        artifacts,
        thread,
        log_check=lambda token: check_log(store, token),
    )

    def register(server: grpc.aio.Server) -> list[str]:
        learner_pb2_grpc.add_LearnerServiceServicer_to_server(LearnerServicer(service), server)
        return [SERVICE]

    server = RpcServer(ServerConfig(shutdown_grace=0.0), "learner", register)
    await server.start()
    await server.serve()
    channel = open_channel(f"127.0.0.1:{server.ports.port}", service=SERVICE)
    try:
        yield learner_pb2_grpc.LearnerServiceStub(channel)
    finally:
        await channel.close(None)
        await server.stop()
        thread.close(wait=5.0)


def test_a_ppo_stage_over_grpc(tmp_path: Path) -> None:
    store = MemoryStore()
    model = put_model(store, tmp_path / "model")

    async def act() -> None:
        async with learner_stub(store, tmp_path) as stub:
            opened = await stub.Open(open_request(model), timeout=30)
            assert (opened.status.learner_id, opened.status.step) == ("learner-0", 0)
            start = (await result_of(stub.Publish(learner_pb2.PublishRequest(token=owner(), step=0)))).model
            assert (start.uri, start.policy_version) == ("store:jobs/job-1/ppo/policy/0-1", 0)

            step = learner_pb2.StepRequest(token=owner(), step=1, batch=put_batch(store, 1))
            result = (await result_of(stub.Step(step))).result
            metrics = {value.name: value.value if value.HasField("value") else None for value in result.metrics}
            assert metrics["policy/clip_fraction_first"] == 0.0
            assert metrics["reward/length_explained"] is None
            assert len(read_tokens(store.get(result.tokens.key))) == 10
            assert (await result_of(stub.Step(step))).result == result

            saved = (await result_of(stub.Save(learner_pb2.SaveRequest(token=owner(), step=1)))).manifest
            newer = owner(attempt=2)
            opened = await stub.Open(open_request(model, token=newer, checkpoint=saved), timeout=30)
            assert (opened.status.step, opened.status.policy_version) == (1, 1)
            asked = learner_pb2.ComputePolicyLogprobsRequest(
                token=newer,
                prompt_ids=to_ragged_ints([[1, 2]]),
                completion_ids=to_ragged_ints([[3, 4, 5]]),
                temperature=0.7,
            )
            answer = await stub.ComputePolicyLogprobs(asked, timeout=30)
            assert answer.policy_version == 1
            assert len(from_ragged_floats(answer.logprobs)[0]) == 3

            export = learner_pb2.ExportRequest(token=newer, extra_files={"README.md": b"A tiny policy."})
            exported = (await result_of(stub.Export(export))).exported
            folder = FolderCache(store, tmp_path / "out", 1 << 30).fetch(exported.model.uri, exported.model.digest)
            load_causal_lm(folder)
            assert {"README.md", "SHA256SUMS", "tokenizer.json", "config.json"} <= {f.name for f in folder.iterdir()}

            await stub.Close(learner_pb2.CloseRequest(token=newer), timeout=5)
            status = await stub.GetStatus(learner_pb2.GetStatusRequest(), timeout=5)
            assert not status.HasField("token")

    run(act)


def test_refusals_keep_their_class_on_the_wire(tmp_path: Path) -> None:
    store = MemoryStore()
    model = put_model(store, tmp_path / "model")

    async def act() -> None:
        async with learner_stub(store, tmp_path) as stub:
            await stub.Open(open_request(model, token=owner(epoch=2)), timeout=30)
            busy = await refusal(stub.Open(open_request(model, token=owner("job-2")), timeout=30))
            fenced = await refusal(stub.Open(open_request(model), timeout=30))
            ahead = learner_pb2.StepRequest(token=owner(epoch=2), step=4, batch=put_batch(store, 4))
            wrong_step = await refusal(result_of(stub.Step(ahead), lost_after=10))
            await stub.Close(learner_pb2.CloseRequest(token=owner(epoch=2)), timeout=5)
            no_stage = await refusal(stub.Open(open_request(model, token=owner("job-3"), stage=0), timeout=30))

        assert isinstance(busy, LearnerBusy)
        assert "job-1" in busy.message
        assert isinstance(fenced, Fenced)
        assert isinstance(wrong_step, WrongState)
        assert "step 0" in wrong_step.message
        assert isinstance(no_stage, InvalidInput)

    run(act)


def test_the_job_log_fences_an_owner_that_it_has_superseded(tmp_path: Path) -> None:
    store = MemoryStore()
    model = put_model(store, tmp_path / "model")
    create_job(store, "job-1", {"spec": {}})
    log = JobLog(store, "job-1")
    for epoch in (1, 2):
        log.append(Event(OwnerTaken(owner=f"o{epoch}"), "test", epoch=epoch))

    async def act() -> None:
        async with learner_stub(store, tmp_path) as stub:
            assert isinstance(await refusal(stub.Open(open_request(model), timeout=30)), Fenced)
            await stub.Open(open_request(model, token=owner(epoch=2)), timeout=30)

    run(act)


def test_the_process_serves_and_stops(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    model = put_model(store, tmp_path / "model")
    ports = tmp_path / "ports.json"
    root = Path(__file__).parents[3]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(root / name) for name in ("lib", "services", "orchestrator")),
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [
        *(sys.executable, "-m", "quatrain.learner", "--learner.id=learner-7", "--compute.threads=1"),
        *(f"--server.port_file={ports}", f"--storage.root={tmp_path / 'store'}", "--learner.backend=fake"),
    ]
    process = subprocess.Popen(command, env=environment)
    try:
        deadline = time.monotonic() + 60
        while not ports.exists():
            assert process.poll() is None, "the learner ended early"
            assert time.monotonic() < deadline, "the learner does not serve"
            time.sleep(0.05)
        address = f"127.0.0.1:{json.loads(ports.read_text())['port']}"

        async def act() -> None:
            async with open_channel(address, service=SERVICE) as channel:
                stub: Any = learner_pb2_grpc.LearnerServiceStub(channel)
                opened = await stub.Open(open_request(model), timeout=30)
                assert opened.status.device == "none (fake)"
                step = learner_pb2.StepRequest(token=owner(), step=1, batch=put_batch(store, 1))
                assert (await result_of(stub.Step(step))).result.step == 1

        run(act)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.wait()
