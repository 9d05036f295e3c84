"""Each test of the queue's conformance suite runs in memory, on Valkey and on Redis."""

from collections.abc import Iterator

import pytest
from tests.contract.queues import KINDS, Bench
from tests.servers.redis import RedisServer


@pytest.fixture(params=KINDS)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    if request.param == "memory":
        yield Bench(None)
        return
    server: RedisServer = request.getfixturevalue(f"{request.param}_server")
    bench = Bench(server.url)
    bench.wipe()
    yield bench
