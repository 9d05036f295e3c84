"""Which chunks are computed when is the engine's affair: one that batches, and one that computes each chunk alone."""

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import pytest
from grpc_health.v1 import health_pb2_grpc
from tests.integration.generation.serving import PROMPTS, request_for, run
from tests.unit.models.tiny_models import POSITIONS, VOCABULARY, save_tiny_model, tiny_model
from transformers import PreTrainedModel
from typing_extensions import override

from quatrain.generation.engines import decoding
from quatrain.generation.engines.base import Capabilities, Chunk, Completion, Engine, Request, Result, Sampling
from quatrain.generation.engines.transformers import TransformersEngine
from quatrain.models.request_checks import ModelLimits
from quatrain.rpc.tensors import from_ragged_floats, from_ragged_ints
from quatrain.v1 import generation_pb2
from quatrain.v1.generation_pb2_grpc import GenerationServiceStub

CHUNKS = 8
SECONDS = 60.0
LIMITS = ModelLimits(VOCABULARY, POSITIONS)
SAMPLING = Sampling(8, 0.9, ignore_eos=False, eos_token_ids=(3, 5))


class BatchingEngine(Engine):
    """Computes the chunks in flight as one batch as soon as `CHUNKS` of them are there."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._tasks: set[asyncio.Task[None]] = set()
        self.waiting: dict[asyncio.Future[Result], Chunk] = {}
        self.batches: list[int] = []

    @override
    def capabilities(self) -> Capabilities:
        return Capabilities("batching", exact_logprobs=True, device="cpu", job_slots=1)

    @override
    async def generate(self, request: Request) -> Result:
        chunk = request.chunk_within(LIMITS)
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.waiting[answer] = chunk
        if len(self.waiting) == CHUNKS:
            self._tasks.add(asyncio.create_task(self._compute(self.waiting)))
            self.waiting = {}
        try:
            return await answer
        finally:
            self.waiting.pop(answer, None)

    @override
    async def watch(self) -> None:
        await asyncio.sleep(SECONDS)

    @override
    async def close(self) -> None:
        await asyncio.gather(*self._tasks)

    async def _compute(self, together: dict[asyncio.Future[Result], Chunk]) -> None:
        self.batches.append(len(together))
        chunks = list(together.values())
        prompts = [prompt for chunk in chunks for prompt in chunk.prompts]
        seeds = [seed for chunk in chunks for seed in chunk.seeds]
        rows = await asyncio.to_thread(decoding.generate, self._model, Chunk(prompts, seeds, chunks[0].sampling))
        remaining = iter(rows)
        for answer, chunk in together.items():
            answer.set_result(Result(list(itertools.islice(remaining, len(chunk.prompts))), 0.001))


def own_chunk(number: int) -> Chunk:
    """A chunk unlike those of other numbers."""
    prompts = [np.array([number, *prompt], np.int32) for prompt in PROMPTS]
    return Chunk(prompts, [number, 100 + number, 200 + number], SAMPLING)


async def ask(stub: GenerationServiceStub, number: int) -> generation_pb2.GenerateResponse:
    chunk = own_chunk(number)
    request = request_for("d1", prompts=chunk.prompts, seeds=chunk.seeds)
    answer: generation_pb2.GenerateResponse = await stub.Generate(request, timeout=SECONDS)
    return answer


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def check_own(answers: Sequence[generation_pb2.GenerateResponse], alone: list[list[Completion]]) -> None:
    """Each caller has what its chunk gives alone, and no two have the same."""
    for answer, expected in zip(answers, alone, strict=True):
        tokens, logprobs = from_ragged_ints(answer.completion_ids), from_ragged_floats(answer.logprobs)
        for row, ids, values in zip(expected, tokens, logprobs, strict=True):
            assert row.token_ids.tolist() == ids.tolist()
            np.testing.assert_allclose(row.logprobs, values, atol=1e-5, rtol=0)
    assert len({answer.completion_ids.values for answer in answers}) == len(answers)


def test_an_engine_that_batches_has_eight_chunks_in_flight_and_answers_each_caller() -> None:
    model = tiny_model()
    engine = BatchingEngine(model)
    alone = [decoding.generate(model, own_chunk(number)) for number in range(CHUNKS)]

    async def test(stub: GenerationServiceStub, _: health_pb2_grpc.HealthStub) -> None:
        given_up = asyncio.ensure_future(ask(stub, 30))
        await until(lambda: len(engine.waiting) == 1)
        given_up.cancel()
        await until(lambda: not engine.waiting)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ask(stub, VOCABULARY)
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        check_own(await asyncio.gather(*(ask(stub, number) for number in range(CHUNKS))), alone)

    run(engine, test)
    assert engine.batches == [CHUNKS], "all eight were there before the first was computed, and nothing else was"


def test_the_transformers_engine_computes_one_chunk_at_a_time_and_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny_model(tmp_path / "m")
    engine = TransformersEngine(lambda uri, digest: folder, device="cpu", threads=1, queue_size=CHUNKS)
    alone = [decoding.generate(tiny_model(), own_chunk(number)) for number in range(CHUNKS)]
    generate, computing, threads, sizes = decoding.generate, threading.Lock(), set(), []

    def watched(model: PreTrainedModel, chunk: Chunk) -> list[Completion]:
        assert computing.acquire(blocking=False), "two chunks at once"
        try:
            time.sleep(0.02)
            threads.add(threading.get_ident())
            sizes.append(len(chunk.prompts))
            return generate(model, chunk)
        finally:
            computing.release()

    async def test(stub: GenerationServiceStub, _: health_pb2_grpc.HealthStub) -> None:
        await ask(stub, 0)  # loads the policy, which is tried out by a chunk of its own
        monkeypatch.setattr(decoding, "generate", watched)
        check_own(await asyncio.gather(*(ask(stub, number) for number in range(CHUNKS))), alone)

    run(engine, test)
    assert sizes == [len(PROMPTS)] * CHUNKS
    assert len(threads) == 1
