"""Specs that name models and data in S3 buckets: read from a real MinIO, pinned by content, or refused by field."""

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.integration.orchestrator.world import World, deployment, run, write_model
from tests.servers.s3 import S3Server

from quatrain.config import SourcesConfig, StorageConfig
from quatrain.digests import sha256_hex
from quatrain.errors import Corrupt, InvalidData, InvalidInput, NotFound, QuatrainError, Unavailable
from quatrain.orchestrator.api.artifact_servicer import ArtifactServicer
from quatrain.orchestrator.submission.sources import Sources, choose_files, exactly
from quatrain.orchestrator.submission.submit import Submission
from quatrain.storage import ObjectStat
from quatrain.storage.folders import upload_model_folder
from quatrain.storage.s3 import S3Store
from quatrain.v1 import artifact_pb2

CLASSIFIER = "Qwen2ForSequenceClassification"
OWN = "the-deployments-own"


def jsonl(*rows: dict[str, Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


SFT = jsonl({"prompt": "ab", "completion": "cd"}, {"prompt": "b", "completion": "a"})
PAIRS = jsonl(*({"prompt": "ab", "chosen": "c" * n, "rejected": "d" * n} for n in range(1, 9)))
PROMPTS = jsonl(*({"prompt": "abcd"[i % 4] + "abcd"[i // 4], "topic": f"t{i}"} for i in range(8)))
HELD_OUT = b"prompt,topic\nac,x\nbd,y\n"


@dataclass(frozen=True)
class Bucket:
    """A bucket of the MinIO, beside the deployment."""

    server: S3Server
    name: str
    store: S3Store

    def put(self, key: str, data: bytes) -> str:
        self.store.put(key, data)
        return f"s3://{self.name}/{key}"

    def put_folder(self, prefix: str, folder: Path) -> str:
        for path in folder.iterdir():
            self.store.put(f"{prefix}/{path.name}", path.read_bytes())
        return f"s3://{self.name}/{prefix}"

    def sources(self, scratch: Path, **changed: Any) -> Sources:
        """The bucket open to jobs, and one that is not there; `changed`: other settings of the section."""
        settings: dict[str, Any] = {
            "buckets": (self.name, "not-there", OWN),
            "endpoint": self.server.endpoint,
            "access_key": self.server.access_key,
            "secret_key": self.server.secret_key,
            "secure": False,
            "max_data_bytes": 4096,
        }
        config = SourcesConfig(**settings | changed)
        return Sources(config, StorageConfig(kind="s3", bucket=OWN), scratch, total_wait=0.5)


@pytest.fixture(scope="module")
def bucket(minio_server: S3Server) -> Bucket:
    store = minio_server.new_store()
    return Bucket(minio_server, store.name.rpartition("/")[2], store)


def with_prompts(world: World, prompts: Any, **ppo: Any) -> dict[str, Any]:
    spec = world.spec(**ppo)
    spec["ppo"]["prompts"] = prompts
    return spec


def full_specs(world: World, models: dict[str, str], data: Callable[[str, bytes], Any]) -> list[dict[str, Any]]:
    """Two specs that name something at every place where they can."""
    gold = {"eval_prompts": data("held-out.csv", HELD_OUT), "eval_gold": {"model": models["scorer"]}}
    spec = with_prompts(world, data("prompts.jsonl", PROMPTS), **gold) | {
        "model": {"uri": models["policy"]},
        "reference": {"model": models["reference"]},
        "sft": {"data": data("sft.ndjson", SFT)},
    }
    pairs = {"data": data("pairs", PAIRS), "held_out_share": 0.25}
    return [spec | {"reward": {"model": models["scorer"]}}, spec | {"reward": pairs}]


def test_what_a_spec_names_in_a_bucket_is_pinned_like_the_same_files_uploaded(tmp_path: Path, bucket: Bucket) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, learners=0, workers=0, schedulers=0) as world:

            def upload(name: str, data: bytes) -> dict[str, str]:
                world.store.put_if_absent(f"data/sha256/{sha256_hex(data)}", data)
                return {"uri": f"sha256:{sha256_hex(data)}", "format": "csv" if name.endswith("csv") else "jsonl"}

            folders = {
                "policy": write_model(tmp_path / "policy"),
                "reference": write_model(tmp_path / "reference", positions=48),
                "scorer": write_model(tmp_path / "scorer", CLASSIFIER),
            }
            in_bucket = {name: bucket.put_folder(f"models/{name}", folder) for name, folder in folders.items()}
            uploaded = {
                name: f"sha256:{upload_model_folder(world.store, folder).digest}" for name, folder in folders.items()
            }
            for unwanted in (".gitattributes", "pytorch_model.bin", "onnx/model.onnx", "manifest.json"):
                bucket.put(f"models/policy/{unwanted}", b"what no client would upload")

            submitter = world.submitter(sources=bucket.sources(tmp_path))
            for from_bucket, sent in zip(
                full_specs(world, in_bucket, bucket.put), full_specs(world, uploaded, upload), strict=True
            ):
                plan = await submitter.submit(Submission(from_bucket, "local"))
                expected = await submitter.submit(Submission(sent, "local"))
                assert plan.pinned == expected.pinned
                assert plan.spec.model == expected.spec.model
                assert world.store.stat(f"active/{plan.job}") is not None
            submitter.sources.close()

    run(scenario)
    assert list(tmp_path.glob("source-*")) == []


def test_a_job_from_a_bucket_runs_to_its_end_whatever_happens_there(tmp_path: Path, bucket: Bucket) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path) as world:
            spec = with_prompts(world, bucket.put("run/prompts.jsonl", PROMPTS))
            spec["model"]["uri"] = bucket.put_folder("run/model", tmp_path / "base")
            submission = Submission(spec, "local", request_id="once")
            job = (await world.submitter(sources=bucket.sources(tmp_path)).submit(submission)).job
            for stat in bucket.store.list("run/"):
                bucket.store.delete(stat.key)
            again = await world.submitter(sources=bucket.sources(tmp_path)).submit(submission)
            assert again.job == job
            assert (await world.end_of(job)).state == "SUCCEEDED"

    run(scenario)


def broken_model(bucket: Bucket, folder: Path, prefix: str, **files: bytes | None) -> str:
    """The model with files replaced, or left out (None)."""
    uri = bucket.put_folder(prefix, folder)
    for name, data in files.items():
        key = f"{prefix}/{name.replace('__', '.')}"
        bucket.store.delete(key) if data is None else bucket.store.put(key, data)
    return uri


Make = Callable[[World, Bucket], str]

MODELS: dict[str, tuple[str, Make]] = {
    "bucket that is not open": ("sources.buckets", lambda w, b: "s3://closed/base"),
    "own bucket": ("never open to jobs", lambda w, b: f"s3://{OWN}/models/{'0' * 64}"),
    "no key": ("give s3://BUCKET/KEY", lambda w, b: f"s3://{b.name}/"),
    "way out of the bucket": ("not plain", lambda w, b: f"s3://{b.name}/base/../../{OWN}/models"),
    "bucket that is not there": ("no such bucket", lambda w, b: "s3://not-there/base"),
    "nothing there": ("nothing lies under it", lambda w, b: f"s3://{b.name}/nowhere"),
    "pickles": (
        "pickle files (pytorch_model.bin)",
        lambda w, b: broken_model(
            b, w.root / "base", "pickles", model__safetensors=None, pytorch_model__bin=b"\x80\x04."
        ),
    ),
    "corrupt weights": (
        "corrupt/model.safetensors is not a sound safetensors file",
        lambda w, b: broken_model(b, w.root / "base", "corrupt", model__safetensors=b"\xff" * 64),
    ),
    "no tokenizer": (
        "no tokenizer.json",
        lambda w, b: broken_model(b, w.root / "base", "mute", tokenizer__json=None),
    ),
    "too big": ("sources.max_model_bytes", lambda w, b: broken_model(b, w.root / "base", "big", x=bytes(20_000))),
    "hugging face": ("sources.hub", lambda w, b: "hf://org/model"),
}
DATA: dict[str, tuple[str, Make]] = {
    "bucket that is not open": ("sources.buckets", lambda w, b: "s3://closed/prompts.jsonl"),
    "own bucket": ("never open to jobs", lambda w, b: f"s3://{OWN}/data/sha256/{'0' * 64}"),
    "bucket that is not there": ("no such bucket", lambda w, b: "s3://not-there/prompts.jsonl"),
    "no such object": ("no such object", lambda w, b: f"s3://{b.name}/nowhere.jsonl"),
    "other columns": ("columns.json: The columns are x", lambda w, b: b.put("columns.json", b'[{"x": 1}]')),
    "format unknown": ("Give `format`", lambda w, b: b.put("what-is-this", b"abc")),
    "empty": ("is empty", lambda w, b: b.put("empty.jsonl", b"")),
    "too big": ("sources.max_data_bytes", lambda w, b: b.put("big.jsonl", PROMPTS * 20)),
    "hugging face": ("sources.hub", lambda w, b: "hf://datasets/org/data"),
}


def test_every_refusal_names_its_field_and_leaves_nothing(tmp_path: Path, bucket: Bucket) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, learners=0, workers=0, schedulers=0) as world:
            submitter = world.submitter(sources=bucket.sources(tmp_path, max_model_bytes=20_000))
            models = len(world.store.list("models/"))

            async def refused(spec: dict[str, Any], field: str, text: str) -> None:
                with pytest.raises(InvalidInput) as caught:
                    await submitter.submit(Submission(spec, "local"))
                assert [violation.field for violation in caught.value.violations] == [field], caught.value.message
                assert text in caught.value.message
                assert str(tmp_path) not in caught.value.message

            for text, make in MODELS.values():
                await refused(world.spec() | {"model": {"uri": make(world, bucket)}}, "model.uri", text)
            for text, make in DATA.values():
                await refused(with_prompts(world, make(world, bucket)), "ppo.prompts", text)
            closed = "s3://closed/x"
            gold = {"eval_gold": {"model": closed}, "eval_prompts": world.spec()["ppo"]["prompts"]}
            await refused(world.spec() | {"reference": {"model": closed}}, "reference.model", closed[5:11])
            await refused(world.spec() | {"reward": {"model": closed}}, "reward.model", closed[5:11])
            await refused(world.spec() | {"reward": {"data": closed}}, "reward.data", closed[5:11])
            await refused(world.spec() | {"sft": {"data": closed}}, "sft.data", closed[5:11])
            await refused(world.spec(eval_prompts=closed), "ppo.eval_prompts", closed[5:11])
            await refused(world.spec(**gold), "ppo.eval_gold.model", closed[5:11])

            assert world.store.list("jobs/") == world.store.list("active/") == []
            assert len(world.store.list("models/")) == models

    run(scenario)
    assert list(tmp_path.glob("source-*")) == []


def test_a_model_is_imported_from_a_bucket_under_a_name(tmp_path: Path, bucket: Bucket) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, learners=0, workers=0, schedulers=0) as world:
            no_uploads: Any = None
            no_context: Any = None
            servicer = ArtifactServicer(world.store, no_uploads, bucket.sources(tmp_path), tmp_path)

            async def load(uri: str, **fields: Any) -> artifact_pb2.ImportModelResponse:
                return await servicer.ImportModel(artifact_pb2.ImportModelRequest(uri=uri, **fields), no_context)

            answer = await load(bucket.put_folder("import", tmp_path / "base"), name="base")
            assert (answer.model.uri, answer.number) == (world.model_uri, 1)
            for uri in (f"s3://{OWN}/models/x", "s3://closed/x", "hf://org/model", "file:///etc"):
                with pytest.raises(InvalidInput):
                    await load(uri)
            with pytest.raises(InvalidInput, match="not from both"):
                await load(f"s3://{bucket.name}/import", files=[artifact_pb2.ModelFile(path="x", sha256="0" * 64)])

    run(scenario)


def test_no_bucket_is_open_unless_the_operator_says_so(tmp_path: Path, bucket: Bucket) -> None:
    with (
        pytest.raises(InvalidInput, match=r"is not open to jobs: .* in sources\.buckets"),
        Sources(SourcesConfig(), StorageConfig(), tmp_path).data(bucket.put("open.jsonl", PROMPTS)),
    ):
        pass


def test_a_key_without_rights_is_a_refusal_and_a_server_that_is_away_is_not(tmp_path: Path, bucket: Bucket) -> None:
    uri = bucket.put("private.jsonl", PROMPTS)

    def fails(**changed: Any) -> QuatrainError:
        with pytest.raises(QuatrainError) as caught, bucket.sources(tmp_path, **changed).data(uri):
            pass
        with pytest.raises(type(caught.value)), bucket.sources(tmp_path, **changed).model(uri):
            pass
        assert uri in caught.value.message
        return caught.value

    for changed in ({"secret_key": "wrong"}, {"access_key": ""}):
        refusal = fails(**changed)
        assert isinstance(refusal, InvalidData)
        assert "access refused" in refusal.message
    assert type(fails(endpoint="127.0.0.1:1")) is Unavailable


def test_an_unreachable_server_queues_nothing(tmp_path: Path, bucket: Bucket) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, learners=0, workers=0, schedulers=0) as world:
            submitter = world.submitter(sources=bucket.sources(tmp_path, endpoint="127.0.0.1:1"))
            for spec in (
                world.spec() | {"model": {"uri": f"s3://{bucket.name}/model"}},
                with_prompts(world, f"s3://{bucket.name}/prompts.jsonl"),
            ):
                with pytest.raises(Unavailable, match=f"s3://{bucket.name}/.* cannot be read now"):
                    await submitter.submit(Submission(spec, "local"))
            assert world.store.list("jobs/") == world.store.list("active/") == []

    run(scenario)


def test_sources_lie_beside_the_deployments_own_bucket_unless_said_otherwise(tmp_path: Path, bucket: Bucket) -> None:
    server = bucket.server
    storage = StorageConfig(
        kind="s3",
        endpoint=server.endpoint,
        bucket=OWN,
        access_key=server.access_key,
        secret_key=server.secret_key,
        secure=False,
    )
    uri = bucket.put("beside.jsonl", PROMPTS)

    with Sources(SourcesConfig(buckets=(bucket.name,)), storage, tmp_path).data(uri) as path:
        assert path.read_bytes() == PROMPTS
    stranger = SourcesConfig(buckets=(bucket.name,), access_key="nobody", secret_key="nothing")
    with pytest.raises(InvalidData, match="access refused"), Sources(stranger, storage, tmp_path).data(uri):
        pass


def test_settings_that_cannot_work_end_the_process_at_its_start(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"sources\.endpoint .* names no S3 server"):
        Sources(SourcesConfig(buckets=("data",)), StorageConfig(), tmp_path)
    with pytest.raises(InvalidInput, match=r"sources\.endpoint 'http://host' is no host:port"):
        Sources(SourcesConfig(buckets=("data",), endpoint="http://host"), StorageConfig(), tmp_path)


def test_a_server_that_shuts_down_ends_its_copies(tmp_path: Path, bucket: Bucket) -> None:
    sources = bucket.sources(tmp_path)
    uri = bucket.put("long.jsonl", PROMPTS)
    sources.close()
    with pytest.raises(Unavailable, match="shutting down"), sources.data(uri):
        pass


def test_reading_a_bucket_has_threads_of_its_own(tmp_path: Path) -> None:
    async def scenario() -> None:
        sources = Sources(SourcesConfig(), StorageConfig(), tmp_path)
        names = [
            await sources.in_thread(uri, lambda _: threading.current_thread().name)
            for uri in ("s3://bucket/key", "sha256:0")
        ]
        assert [name.startswith("sources") for name in names] == [True, False]

    asyncio.run(scenario())


def objects(*names: str) -> list[ObjectStat]:
    return [ObjectStat(f"base/{name}", 1, 0.0) for name in names]


def test_only_plain_paths_of_a_bucket_become_files() -> None:
    chosen = choose_files("s3://b/base", "base/", objects("", "a/", "a/config.json", "m.safetensors", ".git/x", "y.pt"))
    assert chosen == {"a/config.json": 1, "m.safetensors": 1}
    for hostile in ("../x", "a/../../x", "a//x", "/etc/passwd", "a\\..\\x", "a\nb", "./x", "x" * 300):
        with pytest.raises(InvalidInput, match="object key"):
            choose_files("s3://b/base", "base/", objects("m.safetensors", hostile))
    with pytest.raises(InvalidInput, match="a file and a folder"):
        choose_files("s3://b/base", "base/", objects("m.safetensors", "x", "x/y"))
    with pytest.raises(InvalidData, match="more than 2000 files"):
        choose_files("s3://b/base", "base/", objects(*(f"{n}.safetensors" for n in range(2001))))
    with pytest.raises(NotFound):
        choose_files("s3://b/base", "base/", [])


def test_an_object_that_grows_or_shrinks_while_it_is_read_is_not_taken() -> None:
    assert list(exactly([b"ab", b"c"], 3, "uri")) == [b"ab", b"c"]
    taken: list[bytes] = []
    for size in (2, 4):
        with pytest.raises(Corrupt, match="was replaced"):
            taken.extend(exactly([b"ab", b"c"], size, "uri"))
    assert taken == [b"ab", b"ab", b"c"]
