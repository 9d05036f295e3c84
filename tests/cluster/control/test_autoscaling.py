"""KEDA scales rollout workers and generation by the tasks that nobody has taken yet, as a real Redis counts them."""

import asyncio
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from tests.cluster.api import Cluster, Manifest
from tests.cluster.control_plane import Site
from tests.cluster.controllers import run_keda
from tests.cluster.release import Release
from tests.servers.certificates import Authority
from tests.servers.redis import redis_binary, run_redis, valkey_binary
from tests.servers.tls_front import tls_front

from quatrain.queue import Lease
from quatrain.queue.names import GROUP, tasks_key
from quatrain.queue.redis import RedisQueue

POOL, JOB, PASSWORD = "default", "job-1", "correct-horse"
LAGS = {"rollout": 2, "generation": 4}  # tasks for each replica
LEAST, MOST = 1, 6
DEADLINE = 120.0
SERVERS = {"redis": redis_binary, "valkey": valkey_binary}


@pytest.fixture(scope="module")
def keda(site: Site, cluster: Cluster) -> Iterator[None]:
    with run_keda(site, cluster):
        yield


@dataclass(frozen=True)
class Pool:
    """A release that follows a queue, and both ends of that queue."""

    release: Release
    queue: RedisQueue
    server: Any  # redis-py leaves its commands without types
    runner: asyncio.Runner

    def add(self, count: int) -> None:
        """Tasks, as an orchestrator adds them."""
        for _ in range(count):
            self.runner.run(self.queue.add_task(POOL, JOB, b"task"))

    def take(self, count: int) -> list[Lease]:
        """Tasks, leased one by one by several workers."""
        return [
            lease
            for number in range(count)
            for lease in self.runner.run(self.queue.lease(POOL, f"worker-{number % 3}", count=1, block=1.0))
        ]

    def complete(self, leases: Sequence[Lease]) -> None:
        """Tasks, done."""
        for lease in leases:
            assert self.runner.run(self.queue.complete(lease, []))

    def lag(self) -> int | None:
        """What Redis says; None when it does not know."""
        (group,) = (group for group in self.server.xinfo_groups(tasks_key(POOL)) if group["name"] == GROUP.encode())
        lag: int | None = group["lag"]
        return lag

    def metric(self, service: str) -> str:
        """The lag as the API of external metrics tells it to the autoscaler."""
        scaled = self.release.object("scaledobject", service)
        (name,) = scaled["status"]["externalMetricNames"]
        selector = f"labelSelector=scaledobject.keda.sh%2Fname%3D{scaled['metadata']['name']}"
        path = f"/apis/external.metrics.k8s.io/v1beta1/namespaces/{self.release.namespace}/{name}?{selector}"
        (item,) = json.loads(self.release.cluster.kubectl("get", "--raw", path))["items"]
        return str(item["value"])

    def replicas(self) -> dict[str, int]:
        """How many pods of each service are wanted."""
        return {service: self.release.object("deployment", service)["spec"]["replicas"] for service in LAGS}

    def follows(self, waiting: int) -> None:
        """Waits until there are as many replicas as so many waiting tasks want."""
        assert self.lag() == waiting
        wanted = {service: min(MOST, max(LEAST, -(-waiting // lag))) for service, lag in LAGS.items()}
        self.release.cluster.wait(f"{wanted} for {waiting} tasks", lambda: self.replicas() == wanted, DEADLINE)
        assert {service: self.metric(service) for service in LAGS} == dict.fromkeys(LAGS, str(waiting))

    def waits_for(self, kind: str, condition: str, status: bool) -> None:
        """Waits until the autoscaler, or KEDA, says this of both services."""

        def said(service: str) -> bool:
            scaled = self.release.object("scaledobject", service)
            found = scaled
            if kind == "hpa":
                found = self.release.cluster.get(kind, scaled["status"]["hpaName"], self.release.namespace)
            conditions = found["status"]["conditions"]
            return any(one["type"] == condition and one["status"] == str(status) for one in conditions)

        self.release.cluster.wait(f"{kind}: {condition} {status}", lambda: all(map(said, LAGS)), DEADLINE)

    def stays(self, replicas: dict[str, int]) -> None:
        """Watches through several looks of the autoscaler, which would take pods away at the first."""
        until = time.monotonic() + 15.0
        while time.monotonic() < until:
            assert self.replicas() == replicas
            time.sleep(0.5)


@contextmanager
def pool(cluster: Cluster, namespace: str, address: str, *more: str, password: str = "") -> Iterator[Pool]:
    """A release whose rollout workers and generation follow the queue at an address."""
    values = [f"externalRedis.address={address}", f"pool={POOL}", *more]
    for service, lag in LAGS.items():
        scaling = {"kind": "keda", "minReplicas": LEAST, "maxReplicas": MOST, "lag": lag}
        scaling |= {"pollingSeconds": 1, "cooldownSeconds": 0}
        values += [f"{service}.autoscaling.{key}={value}" for key, value in scaling.items()]
    release = Release(cluster, namespace, values=[f"--set={value}" for value in values])
    url = f"redis://:{password}@{address}"
    with asyncio.Runner() as runner, Redis.from_url(url) as server:
        queue = RedisQueue(url)
        try:
            runner.run(queue.open_job(JOB))
            assert runner.run(queue.lease(POOL, "worker-0", count=1, block=0.0)) == []  # the first look makes the group
            release.install()
            yield Pool(release, queue, server, runner)
        finally:
            runner.run(queue.close())


@pytest.mark.parametrize("binary", SERVERS.values(), ids=SERVERS)
@pytest.mark.usefixtures("keda")
def test_replicas_follow_the_tasks_that_wait(
    cluster: Cluster, namespace: str, tmp_path: Path, binary: Callable[[], Path]
) -> None:
    with run_redis(binary(), tmp_path) as redis, pool(cluster, namespace, redis.process.address) as scaled:
        scaled.follows(0)
        for change, waiting in ((8, 8), (1, 9), (41, 50), (-30, 20), (-15, 5), (-5, 0)):
            scaled.add(max(change, 0))
            scaled.complete(scaled.take(max(-change, 0)))
            scaled.follows(waiting)


@pytest.mark.parametrize("binary", SERVERS.values(), ids=SERVERS)
@pytest.mark.usefixtures("keda")
def test_cancelled_tasks_keep_the_number_known(
    cluster: Cluster, namespace: str, tmp_path: Path, binary: Callable[[], Path]
) -> None:
    """Workers take them, see that their job is closed, and acknowledge them in whatever order that happens."""
    with run_redis(binary(), tmp_path) as redis, pool(cluster, namespace, redis.process.address) as scaled:
        scaled.add(20)
        scaled.follows(20)

        scaled.runner.run(scaled.queue.close_job(JOB))
        leases = scaled.take(15)
        random.Random(3).shuffle(leases)
        for lease in (max(leases, key=lambda lease: lease.entry_id), *leases):
            assert not scaled.runner.run(scaled.queue.is_open(lease.job))
            scaled.runner.run(scaled.queue.complete(lease, []))
            assert scaled.lag() == 5
        scaled.follows(5)

        scaled.complete(scaled.take(5))
        scaled.follows(0)


@pytest.mark.usefixtures("keda")
def test_replicas_stay_while_redis_is_away(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    """Of a Redis that cannot be reached KEDA tells the autoscaler nothing, which then changes nothing."""
    binary = redis_binary()
    with run_redis(binary, tmp_path) as redis, pool(cluster, namespace, redis.process.address) as scaled:
        scaled.add(7)
        scaled.follows(7)
        before = scaled.replicas()

        redis.process.kill()
        scaled.waits_for("hpa", "ScalingActive", False)
        scaled.stays(before)

        with run_redis(binary, tmp_path, port=redis.process.port):
            scaled.waits_for("hpa", "ScalingActive", True)
            scaled.follows(7)
            scaled.complete(scaled.take(7))
            scaled.follows(0)


@pytest.mark.usefixtures("keda")
def test_replicas_stay_while_redis_refuses(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    """Then KEDA falls back: it tells the autoscaler a number that wants as many replicas as there are."""
    with run_redis(redis_binary(), tmp_path) as redis, pool(cluster, namespace, redis.process.address) as scaled:
        scaled.add(7)
        scaled.follows(7)
        before = scaled.replicas()

        scaled.server.execute_command("ACL SETUSER", "default", "-info")
        scaled.waits_for("scaledobject", "Fallback", True)
        scaled.stays(before)
        assert {service: scaled.metric(service) for service in LAGS} == {
            service: str(count * LAGS[service]) for service, count in before.items()
        }

        scaled.server.execute_command("ACL SETUSER", "default", "+info")
        scaled.waits_for("scaledobject", "Fallback", False)
        scaled.follows(7)
        scaled.complete(scaled.take(7))
        scaled.follows(0)


@pytest.mark.parametrize("user", ["", "keda"], ids=["password", "user"])
@pytest.mark.usefixtures("keda")
def test_keda_shows_who_it_is(cluster: Cluster, namespace: str, tmp_path: Path, user: str) -> None:
    """The named user may do no more than README.md says that it needs, and has a password of its own."""
    word = "battery-staple" if user else PASSWORD
    with run_redis(redis_binary(), tmp_path) as redis:
        with Redis.from_url(redis.url) as server:
            server.config_set("requirepass", PASSWORD)
        address = redis.process.address
        with Redis.from_url(f"redis://:{PASSWORD}@{address}") as server:
            rights = ("~quatrain:tasks:*", "+ping", "+info", "+xinfo", "+xlen", "+select")
            server.execute_command("ACL SETUSER", "keda", "on", ">battery-staple", *rights)
        cluster.apply(_secret(address, word), namespace=namespace)
        named = ("externalRedis.existingSecret=own-redis", f"externalRedis.username={user}")
        with pool(cluster, namespace, address, *named, password=PASSWORD) as scaled:
            scaled.add(8)
            scaled.follows(8)
            scaled.complete(scaled.take(8))
            scaled.follows(0)


@pytest.mark.usefixtures("keda")
def test_keda_trusts_the_named_authorities(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    """Nobody else has signed the certificate of this Redis."""
    authority = Authority.make(tmp_path / "authority")
    trusted = {"metadata": {"name": "authorities"}, "stringData": {"ca.crt": authority.ca.read_text()}}
    cluster.apply({"apiVersion": "v1", "kind": "Secret", **trusted}, namespace=namespace)
    with (
        run_redis(redis_binary(), tmp_path) as redis,
        tls_front(redis.process.port, authority.issue("redis")) as port,
    ):
        over_tls = (f"externalRedis.address=127.0.0.1:{port}", "externalRedis.tls=true")
        with pool(cluster, namespace, redis.process.address, *over_tls, "trust.existingSecret=authorities") as scaled:
            scaled.add(8)
            scaled.follows(8)
            scaled.complete(scaled.take(8))
            scaled.follows(0)


def _secret(address: str, password: str) -> Manifest:
    data = {"url": f"redis://:{PASSWORD}@{address}", "password": password}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "own-redis"}, "stringData": data}
