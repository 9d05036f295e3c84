"""The whole job on a MinIO and a Redis that the stack did not start, as in a cluster."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.stack import Stack, await_step, finish, running_stack
from tests.e2e.tasks import Spec, changed, count_symbol, write_spec
from tests.servers.redis import RedisServer
from tests.servers.s3 import S3Server
from transformers import AutoModelForCausalLM

from quatrain.batches import read_batch
from quatrain.storage.folders import read_object
from quatrain.storage.s3 import S3Store

STEPS = 12
BUCKET = "quatrain-e2e"
SOURCES = "quatrain-e2e-sources"


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
        "QUATRAIN_SOURCES__BUCKETS": f"{SOURCES},{BUCKET}",
    }
    with running_stack(tmp_path_factory.mktemp("outside"), environment=environment) as stack:
        yield stack


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Spec:
    return changed(count_symbol(tmp_path_factory.mktemp("spec")), ppo__steps=STEPS, checkpoint__every_steps=4)


@pytest.fixture(scope="module")
def bucket_spec(spec: Spec, minio_server: S3Server) -> Spec:
    """The same job with the same files, from a bucket beside the deployment's own."""
    sources = S3Store(minio_server.address(SOURCES))
    sources.ensure_bucket(create=True)
    for path in Path(spec["model"]["uri"].removeprefix("file://")).iterdir():
        sources.put_file(f"tiny/base/{path.name}", path)
    sources.put_file("tiny/prompts.jsonl", Path(spec["ppo"]["prompts"]))
    uris = {"model__uri": f"s3://{SOURCES}/tiny/base", "ppo__prompts": f"s3://{SOURCES}/tiny/prompts.jsonl"}
    return changed(spec, **uris)


def test_job_on_minio_and_redis_with_a_killed_learner(
    stack: Stack, store: S3Store, spec: Spec, bucket_spec: Spec, tmp_path: Path
) -> None:
    with stack.client() as client:
        unbroken = finish(stack, client, client.submit(bucket_spec))
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


def test_the_deployments_own_bucket_cannot_be_read_through_a_spec(
    stack: Stack, bucket_spec: Spec, tmp_path: Path
) -> None:
    with stack.client() as client:
        jobs = len(client.list())
        for field, uri in (("model.uri", f"s3://{BUCKET}/models"), ("ppo.prompts", f"s3://{BUCKET}/jobs/x/spec.json")):
            spec = changed(bucket_spec, **{field.replace(".", "__"): uri})
            refused = stack.run_cli("job", "submit", str(write_spec(tmp_path / "spec.yaml", spec)))
            assert refused.code == 3
            assert f"{field}: bucket '{BUCKET}' holds this deployment's own data" in refused.stderr
        assert len(client.list()) == jobs
