"""A stack of real processes with planted secrets: hostile requests, a greedy reward function, and a sound job after."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import grpc.aio
import pytest
from tests.e2e.stack import Stack, finish, running_stack
from tests.e2e.tasks import changed, count_symbol
from tests.fuzz.calls import Fuzzer
from tests.fuzz.test_public_api import SERVICES

from quatrain.errors import InvalidInput

pytestmark = pytest.mark.slow

SECRET = "planted-9f13-of-the-sources"
REWARDS = """
import os

def kills_everything(completions, **kwargs):
    os.kill(os.getppid(), 9)

def reads_secrets(completions, **kwargs):
    raise ValueError(open(f"/proc/{os.getppid()}/environ").read())

def tells_environment(completions, **kwargs):
    raise ValueError(repr(dict(os.environ)))

def eats_memory(completions, **kwargs):
    return [float(len(bytearray(2**45)))]
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    settings = {
        "QUATRAIN_SOURCES__BUCKETS": "open",
        "QUATRAIN_SOURCES__ENDPOINT": "127.0.0.1:1",
        "QUATRAIN_SOURCES__ACCESS_KEY": f"{SECRET}-id",
        "QUATRAIN_SOURCES__SECRET_KEY": SECRET,
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }
    with running_stack(tmp_path_factory.mktemp("hostile"), environment=settings) as stack:
        yield stack


def everything_said(home: Path) -> str:
    """Logs and stored objects."""
    files = [path for folder in ("logs", "store") for path in (home / folder).rglob("*") if path.is_file()]
    return "\n".join(path.read_bytes().decode(errors="replace") for path in files)


@pytest.mark.timeout(600)
def test_nothing_dies_and_nothing_is_told(stack: Stack, tmp_path: Path) -> None:
    before = {name: record.pid for name, record in stack.processes().items()}
    (tmp_path / "hostile.py").write_text(REWARDS)
    spec = count_symbol(tmp_path)

    fuzzer = asyncio.run(attack(stack))
    with stack.client() as client:
        for name in ("kills_everything", "reads_secrets", "tells_environment", "eats_memory"):
            greedy = changed(spec, reward__functions=[{"path": f"{tmp_path / 'hostile.py'}:{name}"}])
            with pytest.raises(InvalidInput, match=r"hostile\.py:.*raised") as caught:
                client.submit(greedy)
            assert SECRET not in str(caught.value)
        finish(stack, client, client.submit(changed(spec, ppo__steps=2)))

    assert fuzzer.wrong == []
    assert {name: record.pid for name, record in stack.processes().items()} == before
    assert all(os.path.exists(f"/proc/{pid}") for pid in before.values())
    assert SECRET not in everything_said(stack.home)


async def attack(stack: Stack) -> Fuzzer:
    async with grpc.aio.insecure_channel(stack.target) as channel:
        fuzzer = Fuzzer(channel, {"uri": "s3://open/model", "validate_only": True, "step": 1}, (SECRET,))
        for service in SERVICES:
            await fuzzer.attack(service, seed=11, rounds=24)
    return fuzzer
