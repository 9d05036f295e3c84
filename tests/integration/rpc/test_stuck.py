"""A process whose model thread hangs: it says so, hands its calls back, and ends."""

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.integration.rpc.servers import SERVICE, generation_stub, run

from quatrain.errors import Unavailable
from quatrain.process.model_thread import ModelThread
from quatrain.rpc.client.channel import open_channel
from quatrain.rpc.errors import from_rpc_error
from quatrain.rpc.streams import Beat, with_heartbeats
from quatrain.rpc.tensors import to_ragged_ints
from quatrain.v1 import common_pb2
from quatrain.v1 import generation_pb2 as pb

SECONDS = 60.0
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def start(folder: Path) -> "subprocess.Popen[str]":
    """A generation process whose engine computes for an hour."""
    options = {
        "storage.root": folder / "store",
        "generation.engine": "fake",
        "generation.fake_latency": 3600,
        "compute.stuck_after": 0.5,
        "server.shutdown_grace": 1.0,
        "server.port_file": folder / "ports.json",
    }
    command = [sys.executable, "-m", "quatrain.generation", *(f"--{key}={value}" for key, value in options.items())]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=dict(os.environ))


async def port_of(folder: Path) -> int:
    deadline = time.monotonic() + SECONDS
    while not (folder / "ports.json").exists():
        assert time.monotonic() < deadline, "the process did not start"
        await asyncio.sleep(0.05)
    return int(json.loads((folder / "ports.json").read_text())["port"])


def request() -> pb.GenerateRequest:
    return pb.GenerateRequest(
        job="job",
        policy=common_pb2.ModelRef(uri="store:policy", digest="d", policy_version=1),
        prompt_ids=to_ragged_ints([[1, 2]]),
        seeds=[1],
        sampling=pb.SamplingParams(max_new_tokens=2, temperature=1.0, eos_token_ids=[3]),
    )


async def until_not_serving(channel: grpc.aio.Channel) -> None:
    statuses = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE))
    async for answer in statuses:
        if answer.status == NOT_SERVING:
            return


def test_a_process_with_a_hanging_model_thread_says_so_and_ends(tmp_path: Path) -> None:
    process = start(tmp_path)

    async def scenario() -> None:
        address = f"127.0.0.1:{await port_of(tmp_path)}"
        channel = open_channel(address, service="")
        hanging = asyncio.ensure_future(generation_stub(channel).Generate(request(), timeout=SECONDS))
        await until_not_serving(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await generation_stub(channel).Generate(request(), timeout=5.0)
        assert isinstance(from_rpc_error(refused.value, service="generation", target=address), Unavailable)
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await hanging
        assert isinstance(from_rpc_error(ended.value, service="generation", target=address), Unavailable)
        await channel.close(None)

    try:
        run(scenario, limit=SECONDS)
        _, log = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    assert process.returncode == 1
    assert "the model thread has made no progress for" in log
    assert "fake.py" in log, "the log shows where the thread is"


def test_heartbeats_end_when_the_work_does_not_get_on() -> None:
    async def scenario() -> None:
        thread = ModelThread(1, stuck_after=0.2)
        work = asyncio.wrap_future(thread.submit(time.sleep, 3.0))
        beats = []

        async def listen() -> None:
            async for event in with_heartbeats(work, "train", every=0.05, alive=thread.check_progress):
                beats.append(event)

        with pytest.raises(Unavailable, match="no progress"):
            await listen()
        assert len(beats) >= 2
        assert all(isinstance(beat, Beat) for beat in beats)
        work.cancel()

    run(scenario)
