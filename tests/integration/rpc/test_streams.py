"""Heartbeats of long calls, and what a client does when they stop."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest
from tests.integration.rpc.servers import address_of, run

from quatrain.config import ServerConfig
from quatrain.errors import Fenced, QuatrainError, Unavailable
from quatrain.rpc.client.channel import open_channel
from quatrain.rpc.server.server import RpcServer
from quatrain.rpc.streams import Beat, Done, result_of, watched, with_heartbeats
from quatrain.v1 import learner_pb2, learner_pb2_grpc

SERVICE = "quatrain.v1.LearnerService"


class Learner(learner_pb2_grpc.LearnerServiceServicer):
    """Steps last 0.3 s; the step's number says what happens."""

    def __init__(self) -> None:
        self.finished: list[int] = []
        self._tasks: list[asyncio.Task[int]] = []

    async def Step(self, request: Any, context: Any) -> AsyncIterator[learner_pb2.StepResponse]:
        if request.step == 3:
            yield learner_pb2.StepResponse(heartbeat=learner_pb2.Heartbeat(phase="hangs"))
            await asyncio.sleep(60)
        if request.step == 4:
            yield learner_pb2.StepResponse(heartbeat=learner_pb2.Heartbeat(phase="ends"))
            return
        task = asyncio.create_task(self._train(request.step))
        self._tasks.append(task)
        async for item in with_heartbeats(task, "train", every=0.1):
            if isinstance(item, Beat):
                beat = learner_pb2.Heartbeat(phase=item.phase, elapsed_seconds=item.elapsed)
                yield learner_pb2.StepResponse(heartbeat=beat)
            else:
                yield learner_pb2.StepResponse(result=learner_pb2.StepResult(step=item.value))

    async def _train(self, step: int) -> int:
        await asyncio.sleep(0.3)
        self.finished.append(step)
        if step == 2:
            raise Fenced("attempt 5 exists")
        return step

    def register(self, server: grpc.aio.Server) -> list[str]:
        learner_pb2_grpc.add_LearnerServiceServicer_to_server(self, server)
        return [SERVICE]


@contextlib.asynccontextmanager
async def connected(learner: Learner) -> AsyncIterator[Any]:
    server = RpcServer(ServerConfig(shutdown_grace=0.0), "learner", learner.register)
    await server.start()
    await server.serve()
    async with open_channel(address_of(server), service=SERVICE) as channel:
        yield learner_pb2_grpc.LearnerServiceStub(channel)
    await server.stop()


def test_the_result_comes_after_signs_of_life() -> None:
    async def work() -> None:
        request = learner_pb2.StepRequest(step=1)
        async with connected(Learner()) as stub:
            answer = await result_of(stub.Step(request), 5.0)
            *beats, result = [message async for message in watched(stub.Step(request), 5.0)]
        assert answer.result.step == result.result.step == 1
        assert 3 <= len(beats) <= 5
        assert beats[-1].heartbeat.phase == "train"
        assert beats[-1].heartbeat.elapsed_seconds > beats[0].heartbeat.elapsed_seconds

    run(work)


def test_an_error_after_signs_of_life_is_mapped() -> None:
    async def work() -> None:
        async with connected(Learner()) as stub:
            stream = stub.Step(learner_pb2.StepRequest(step=2))
            with pytest.raises(Fenced, match="learner l1 at host:1: attempt 5 exists"):
                await result_of(stream, 5.0, service="learner l1", target="host:1")

    run(work)


def test_silence_is_unavailability() -> None:
    async def work() -> None:
        async with connected(Learner()) as stub:
            stream = stub.Step(learner_pb2.StepRequest(step=3))
            with pytest.raises(Unavailable, match=r"learner at host:1: no heartbeat for 0.2 s"):
                await result_of(stream, 0.2, service="learner", target="host:1")
            assert stream.cancelled()

    run(work)


def test_a_stream_without_result_is_an_error() -> None:
    async def work() -> None:
        async with connected(Learner()) as stub:
            with pytest.raises(QuatrainError, match="ended without a result"):
                await result_of(stub.Step(learner_pb2.StepRequest(step=4)), 5.0)

    run(work)


def test_work_goes_on_when_the_client_leaves() -> None:
    async def work() -> None:
        learner = Learner()
        async with connected(learner) as stub:
            async with contextlib.aclosing(watched(stub.Step(learner_pb2.StepRequest(step=1)), 5.0)) as messages:
                await anext(messages)
            await asyncio.sleep(0.5)
            assert learner.finished == [1]

    run(work)


def test_a_finished_future_needs_no_heartbeat() -> None:
    async def work() -> None:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        future.set_result(7)
        assert [item async for item in with_heartbeats(future, lambda: "x")] == [Done(7)]

    run(work)
