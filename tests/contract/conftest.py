"""Each test of the queue's conformance suite runs in memory, on Valkey and on Redis."""

from collections.abc import Iterator

import pytest
from tests.contract.queues import KINDS, Bench
from tests.servers.redis import RedisServer

from quatrain.storage import rereading


@pytest.fixture(params=KINDS)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    if request.param == "memory":
        yield Bench(None)
        return
    server: RedisServer = request.getfixturevalue(f"{request.param}_server")
    bench = Bench(server.url)
    bench.wipe()
    yield bench


@pytest.fixture
def quick_rereading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads what looks damaged as often as ever, but without the pauses: those have a unit test."""
    monkeypatch.setattr(rereading, "PAUSES", tuple(0.0 for _ in rereading.PAUSES))
