"""KEDA scales rollout workers and generation by the tasks that nobody has taken yet, as a real Redis counts them."""

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.cluster.api import Cluster
from tests.cluster.control_plane import Site
from tests.cluster.controllers import run_keda
from tests.cluster.release import Release
from tests.servers.redis import redis_binary, run_redis, valkey_binary

from quatrain.queue.protocol import Lease
from quatrain.queue.redis import RedisQueue

POOL, JOB = "default", "job-1"
LAGS = {"rollout": 2, "generation": 4}  # tasks for each replica
DEADLINE = 90.0


@pytest.fixture(scope="module")
def keda(site: Site, cluster: Cluster) -> Iterator[None]:
    with run_keda(site, cluster):
        yield


def scaled_by_queue(address: str) -> list[str]:
    values = [f"externalRedis.address={address}", f"pool={POOL}"]
    for service, lag in LAGS.items():
        scaling = {"kind": "keda", "minReplicas": 1, "maxReplicas": 6, "lag": lag, "pollingSeconds": 1}
        scaling["cooldownSeconds"] = 0
        values += [f"{service}.autoscaling.{key}={value}" for key, value in scaling.items()]
    return [f"--set={value}" for value in values]


async def add(queue: RedisQueue, count: int) -> None:
    for _ in range(count):
        await queue.add_task(POOL, JOB, b"task")


async def complete(queue: RedisQueue, count: int) -> None:
    """A worker that takes tasks, in batches as real ones do, and finishes them."""
    left = count
    while left:
        leases: list[Lease] = await queue.lease(POOL, "worker", count=left, block=1.0)
        for lease in leases:
            assert await queue.complete(lease, [])
        left -= len(leases)


@pytest.mark.parametrize("binary", [redis_binary, valkey_binary], ids=["redis", "valkey"])
@pytest.mark.usefixtures("keda")
def test_replicas_follow_the_tasks_that_wait(
    cluster: Cluster, namespace: str, tmp_path: Path, binary: Callable[[], Path]
) -> None:
    with run_redis(binary(), tmp_path) as redis, asyncio.Runner() as runner:
        release = Release(cluster, namespace, values=scaled_by_queue(redis.process.address))
        queue = RedisQueue(redis.url)
        try:
            runner.run(queue.open_job(JOB))
            assert runner.run(queue.lease(POOL, "worker", count=1, block=0.0)) == []  # the first look makes the group
            release.install()

            for change, count, waiting in ((add, 8, 8), (complete, 4, 4), (add, 8, 12), (complete, 12, 0)):
                runner.run(change(queue, count))
                assert runner.run(queue.lag(POOL)) == waiting
                for service, lag in LAGS.items():
                    expected = max(1, -(-waiting // lag))
                    what = f"{expected} of {service} for {waiting} tasks"
                    cluster.wait(what, partial(has_replicas, release, service, expected), DEADLINE)
        finally:
            runner.run(queue.close())


def has_replicas(release: Release, service: str, count: int) -> bool:
    return bool(release.object("deployment", service)["spec"]["replicas"] == count)
