"""The whole job on a MinIO and a Redis that the stack did not start, as in a cluster."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.stack import Stack, await_step, finish, running_stack
from tests.e2e.tasks import Spec, changed, count_symbol
from tests.servers.redis import RedisServer
from tests.servers.s3 import S3Server
from transformers import AutoModelForCausalLM

from quatrain.batches import read_batch
from quatrain.storage.folders import read_object
from quatrain.storage.s3 import S3Store

STEPS = 12
BUCKET = "quatrain-e2e"


@pytest.fixture(scope="module")
def store(minio_server: S3Server) -> S3Store:
    store = S3Store(minio_server.address(BUCKET))
    store.ensure_bucket(create=True)
    return store


@pytest.fixture(scope="module")
def stack(
    tmp_path_factory: pytest.TempPathFactory, minio_server: S3Server, redis_server: RedisServer, store: S3Store
) -> Iterator[Stack]:
    environment = {
        "REDIS_URL": f"{redis_server.url}/0",
        "S3_ENDPOINT": f"http://{minio_server.endpoint}",
        "S3_BUCKET": BUCKET,
        "S3_ACCESS_KEY": minio_server.access_key,
        "S3_SECRET_KEY": minio_server.secret_key,
    }
    with running_stack(tmp_path_factory.mktemp("outside"), environment=environment) as stack:
        yield stack


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Spec:
    return changed(count_symbol(tmp_path_factory.mktemp("spec")), ppo__steps=STEPS, checkpoint__every_steps=4)


def test_job_on_minio_and_redis_with_a_killed_learner(stack: Stack, store: S3Store, spec: Spec, tmp_path: Path) -> None:
    with stack.client() as client:
        unbroken = finish(stack, client, client.submit(spec))
        job = client.submit(spec)
        await_step(client, job, 6)
        stack.kill("learner-0")
        broken = finish(stack, client, job)
        events = client.events(job.id)
        client.download(job.id, tmp_path / "model")

    assert broken.weights_sha256 == unbroken.weights_sha256
    assert broken.attempt == 2
    sealed = [event.data for event in events if event.type == "batch_sealed"]
    assert [len(read_batch(read_object(store, each["key"], each["sha256"]))) for each in sealed] == [64] * STEPS
    AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    with stack.redis() as redis:
        assert redis.keys(f"quatrain:*{job.id}*") == []
    assert "redis" not in stack.processes()
    assert list((stack.home / "store").iterdir()) == []
