"""A store and a queue behind TLS, whose certificates an authority of one's own has signed."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.servers.certificates import Authority
from tests.servers.redis import RedisServer
from tests.servers.s3 import ACCESS_KEY, SECRET_KEY, run_minio
from tests.servers.tls_front import tls_front

from quatrain.errors import Unavailable
from quatrain.queue.redis import RedisQueue
from quatrain.storage.s3 import S3Address, S3Store

REFUSED = "certificate is not trusted; the file in SSL_CERT_FILE names further authorities"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path / "authority")


@pytest.fixture
def s3(authority: Authority, tmp_path: Path) -> Iterator[S3Address]:
    with run_minio(tmp_path, tls=authority.issue("s3")) as server:
        yield S3Address(server.endpoint, "bucket", ACCESS_KEY, SECRET_KEY, secure=True, total_wait=0.5)


@pytest.fixture
def redis_url(authority: Authority, redis_server: RedisServer) -> Iterator[str]:
    with tls_front(redis_server.process.port, authority.issue("redis")) as port:
        yield f"rediss://127.0.0.1:{port}/0"


async def ping(url: str) -> None:
    queue = RedisQueue(url)
    try:
        await queue.check()
    finally:
        await queue.close()


def test_the_store_of_an_authority_that_is_trusted(
    s3: S3Address, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unavailable, match=REFUSED):
        S3Store(s3).ensure_bucket(create=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    store = S3Store(s3)
    store.ensure_bucket(create=True)
    store.put("key", b"value")
    assert store.get("key") == b"value"


def test_the_queue_of_an_authority_that_is_trusted(
    redis_url: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unavailable, match=REFUSED):
        asyncio.run(ping(redis_url))
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    asyncio.run(ping(redis_url))
