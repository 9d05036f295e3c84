"""Raw calls of every method of a service, found by its descriptor, so that a new method cannot be forgotten."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from tests.fuzz.mutations import UNKNOWN_FIELDS, hostile_bytes, hostile_message

CALL_SECONDS = 20.0
STREAM_SECONDS = 1.5
MESSAGES = 4
FORBIDDEN = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED})
Metadata = tuple[tuple[str, str], ...]


@dataclass
class Fuzzer:
    """Calls all methods of services with hostile requests.

    `known` are sound values of fields, by name; `of_method` has others for one method.

    `wrong` collects what should not have happened; `codes` counts the answers of each method.
    """

    channel: Any
    known: dict[str, Any]
    secrets: tuple[str, ...] = ()
    metadata: Metadata = ()
    forbidden: frozenset[grpc.StatusCode] = FORBIDDEN | {grpc.StatusCode.DATA_LOSS}
    of_method: dict[str, dict[str, Any]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    codes: dict[str, dict[str, int]] = field(default_factory=dict)

    async def attack(self, service: ServiceDescriptor, seed: int, rounds: int) -> None:
        """Calls each method so many times, a few calls at once."""
        for method in service.methods:
            for first in range(0, rounds, 4):
                numbers = range(first, min(first + 4, rounds))
                await asyncio.gather(*(self._one(method, f"{seed}/{method.full_name}/{number}") for number in numbers))

    async def _one(self, method: MethodDescriptor, case: str) -> None:
        random_ = random.Random(case)
        bodies = [self._body(random_, method) for _ in range(random_.randrange(4) if method.client_streaming else 1)]
        started = time.monotonic()
        code, text = await self.send(method, bodies)
        counts = self.codes.setdefault(method.name, {})
        counts[code.name] = counts.get(code.name, 0) + 1
        late = code == grpc.StatusCode.DEADLINE_EXCEEDED and not method.server_streaming
        if code in self.forbidden or late:
            self.wrong.append(f"{case}: {code.name} {text[:300]} after {time.monotonic() - started:.1f} s")
        self.wrong += [f"{case} says a secret: {text[:300]}" for secret in self.secrets if secret in text]

    def _body(self, random_: random.Random, method: MethodDescriptor) -> bytes:
        known = self.known | self.of_method.get(method.name, {})
        body = hostile_message(random_, method.input_type, known).SerializeToString()
        kind = random_.randrange(6)
        if kind == 0:
            return hostile_bytes(random_, body)
        return body + UNKNOWN_FIELDS if kind == 1 else body

    async def send(self, method: MethodDescriptor, bodies: list[bytes]) -> tuple[grpc.StatusCode, str]:
        """Status and everything that was said, details and metadata included."""
        path = f"/{method.containing_service.full_name}/{method.name}"
        limit = STREAM_SECONDS if method.server_streaming else CALL_SECONDS
        said: list[str] = []
        try:
            async with asyncio.timeout(limit + 10.0):
                async for message in self._answers(method, path, bodies, limit):
                    said.append(repr(message))
                    if len(said) == MESSAGES:
                        break
        except grpc.aio.AioRpcError as error:
            said += [str(error.details()), repr(error.trailing_metadata()), repr(error.initial_metadata())]
            return error.code(), " ".join(said)
        except TimeoutError:
            return grpc.StatusCode.UNKNOWN, "no answer long after the deadline"
        return grpc.StatusCode.OK, " ".join(said)

    async def _answers(
        self, method: MethodDescriptor, path: str, bodies: list[bytes], limit: float
    ) -> AsyncIterator[bytes]:
        kinds = {
            (False, False): self.channel.unary_unary,
            (False, True): self.channel.unary_stream,
            (True, False): self.channel.stream_unary,
            (True, True): self.channel.stream_stream,
        }
        call: Any = kinds[method.client_streaming, method.server_streaming](path)

        async def requests() -> AsyncIterator[bytes]:
            for body in bodies:
                yield body

        request = requests() if method.client_streaming else bodies[0]
        answer = call(request, timeout=limit, metadata=self.metadata)
        if not method.server_streaming:
            yield await answer
            return
        async for message in answer:
            yield message


def service_of(module: Any, name: str) -> ServiceDescriptor:
    """The descriptor of a service of a generated module."""
    descriptor: ServiceDescriptor = module.DESCRIPTOR.services_by_name[name]
    return descriptor
