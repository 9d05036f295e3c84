"""From configuration to a queue."""

import asyncio

import pytest

from quatrain.config import QueueConfig
from quatrain.errors import InvalidInput
from quatrain.queue import open_queue
from quatrain.queue.memory import MemoryQueue
from quatrain.queue.redis import RedisQueue


def test_kinds() -> None:
    assert isinstance(open_queue(QueueConfig(url="memory://")), MemoryQueue)
    queue = open_queue(QueueConfig(url="redis://:secret@127.0.0.1:1/0"))
    assert isinstance(queue, RedisQueue)
    asyncio.run(queue.close())


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:6379",
        "http://x",
        "redis://host:port",
        "http://:secret@x:1",
        "redis://:secret/2@x:1/0",
        "redis://:12/secret@x:1/0",
        "redis://secret/word@x:1",
        "redis://:2?secret@x:1",
    ],
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(InvalidInput, match=r"queue\.url") as caught:
        open_queue(QueueConfig(url=url))
    assert "secret" not in str(caught.value)
