"""Specs that name models and data on the Hub: the real client against a server that speaks its API."""

import asyncio
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.integration.orchestrator.world import World, deployment, run, write_model
from tests.servers.hub import Hub, running_hub

from quatrain.config import SourcesConfig, StorageConfig
from quatrain.errors import Corrupt, InvalidData, InvalidInput, NotFound, QuatrainError, Unavailable
from quatrain.orchestrator.api.artifact_servicer import ArtifactServicer
from quatrain.orchestrator.submission.sources import Sources
from quatrain.orchestrator.submission.submit import Submission
from quatrain.storage.folders import upload_model_folder
from quatrain.v1 import artifact_pb2

TOKEN = "hf_secret-token-of-the-server"
PROMPTS = "".join(json.dumps({"prompt": "abcd"[i % 4] + "abcd"[i // 4]}) + "\n" for i in range(8)).encode()


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as hub:
        yield hub


def sources(server: Hub, scratch: Path, **changed: Any) -> Sources:
    settings: dict[str, Any] = {"hub": True, "hub_endpoint": server.endpoint, "hub_token": TOKEN}
    return Sources(SourcesConfig(**settings | changed), StorageConfig(), scratch, hub_pauses=(0.01, 0.01))


def read_data(hub: Hub, scratch: Path, uri: str, split: str = "", **changed: Any) -> bytes:
    with sources(hub, scratch, **changed).data(uri, split) as path:
        return path.read_bytes()


def parquet(*rows: dict[str, Any]) -> bytes:
    written = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), written)
    return written.getvalue()


def test_a_job_from_the_hub_is_the_job_from_the_same_files(tmp_path: Path, hub: Hub) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path) as world:
            unwanted = {
                "pytorch_model.bin": b"pickle",
                "onnx/model.onnx": b"x",
                "modeling_x.py": b"x",
                "README.md": b"#",
            }
            model = hub.put_folder("org/tiny", tmp_path / "base", unwanted)
            data = hub.put("datasets/org/prompts", {"data/train.jsonl": PROMPTS, "README.md": b"#"})
            spec = world.spec()
            spec["model"]["uri"] = "hf://org/tiny"
            spec["ppo"]["prompts"] = {"uri": "hf://datasets/org/prompts", "split": "train"}
            plan = await world.submitter(sources=sources(hub, tmp_path)).submit(Submission(spec, "local"))
            assert plan.pinned.model == upload_model_folder(world.store, tmp_path / "base")
            assert plan.pinned.origins == {
                "model.uri": f"hf://org/tiny@{model}",
                "ppo.prompts": f"hf://datasets/org/prompts@{data}",
            }
            assert plan.spec.ppo.prompts.uri == f"hf://datasets/org/prompts@{data}"
            assert [path for _, path in hub.requests if any(name in path for name in unwanted)] == []

            (tmp_path / "prompts.jsonl").write_bytes(PROMPTS)
            spec["model"]["uri"] = f"file://{tmp_path}/base"
            spec["ppo"]["prompts"] = f"file://{tmp_path}/prompts.jsonl"
            twin = await world.submitter(local_files=True).submit(Submission(spec, "local"))
            ends = [await world.end_of(each.job) for each in (plan, twin)]
            assert [end.state for end in ends] == ["SUCCEEDED", "SUCCEEDED"]

    run(scenario)


def test_a_revision_is_read_at_its_commit_and_a_branch_may_move(tmp_path: Path, hub: Hub) -> None:
    first = hub.put("datasets/org/set", {"train.jsonl": b"one\n"})
    hub.put("datasets/org/set", {"train.jsonl": b"tagged\n"}, revision="v1")
    hub.put("datasets/org/set", {"train.jsonl": b"asked\n"}, revision="refs/pr/3")
    opened = sources(hub, tmp_path)
    exact = opened.exact("hf://datasets/org/set/train.jsonl", "dataset")
    hub.put("datasets/org/set", {"train.jsonl": b"two\n"})
    assert exact == f"hf://datasets/org/set@{first}/train.jsonl"
    assert read_data(hub, tmp_path, exact) == b"one\n"
    assert read_data(hub, tmp_path, "hf://datasets/org/set/train.jsonl") == b"two\n"
    assert read_data(hub, tmp_path, "hf://datasets/org/set@v1/train.jsonl") == b"tagged\n"
    assert read_data(hub, tmp_path, "hf://datasets/org/set@refs/pr/3/train.jsonl") == b"asked\n"
    with pytest.raises(NotFound, match="no revision 'v2'"):
        read_data(hub, tmp_path, "hf://datasets/org/set@v2/train.jsonl")


def failing(hub: Hub, status: int) -> str:
    hub.failures.extend([status] * 9)
    return "hf://org/model"


REFUSALS: dict[str, tuple[type[QuatrainError], str, Callable[[Hub], str]]] = {
    "no such repository": (NotFound, "or it is private, which looks the same", lambda hub: "hf://org/nobody"),
    "gated": (
        InvalidData,
        "accept its terms at .*/org/gated with the account",
        lambda hub: hub.put("org/gated", {"model.safetensors": b""}, gated=True, token="other") and "hf://org/gated",
    ),
    "private": (
        NotFound,
        "sources.hub_token",
        lambda hub: hub.put("org/private", {"model.safetensors": b""}, token="other") and "hf://org/private",
    ),
    "pickles only": (
        InvalidData,
        "pickle files .pytorch_model.bin.",
        lambda hub: hub.put("org/pickles", {"config.json": b"{}", "pytorch_model.bin": b"x"}) and "hf://org/pickles",
    ),
    "too large": (
        InvalidData,
        "sources.max_model_bytes",
        lambda hub: hub.put("org/large", {"model.safetensors": bytes(5000)}) and "hf://org/large",
    ),
    "a data set": (InvalidInput, "names a data set of the Hub", lambda hub: "hf://datasets/org/x"),
    "no organisation": (InvalidInput, "names no repository", lambda hub: "hf://gpt2"),
    "way out": (InvalidInput, "names no repository|whole repository", lambda hub: "hf://org/../x"),
    "always busy": (Unavailable, "limits how often", lambda hub: failing(hub, 429)),
    "always down": (Unavailable, "answered 503", lambda hub: failing(hub, 503)),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_read_is_refused_before_anything_is_fetched(case: str, tmp_path: Path, hub: Hub) -> None:
    kind, words, prepare = REFUSALS[case]
    with pytest.raises(kind, match=words) as caught, sources(hub, tmp_path, max_model_bytes=4096).model(prepare(hub)):
        pass
    assert "secret" not in str(caught.value).replace("a secret of the server", "")
    assert [method for method, path in hub.requests if "/resolve/" in path] == []


def test_each_refusal_names_its_field(tmp_path: Path, hub: Hub) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, learners=0, workers=0, schedulers=0) as world:
            submitter = world.submitter(sources=sources(hub, tmp_path))
            changes: dict[str, Callable[[dict[str, Any], str], Any]] = {
                "model.uri": lambda s, uri: s["model"].update(uri=uri),
                "reference.model": lambda s, uri: s.update(reference={"model": uri}),
                "reward.model": lambda s, uri: s.update(reward={"model": uri}),
                "ppo.prompts": lambda s, uri: s["ppo"].update(prompts=uri.replace("hf://", "hf://datasets/")),
            }
            for field, change in changes.items():
                spec = world.spec()
                change(spec, "hf://org/nobody")
                with pytest.raises(InvalidData, match=f"{field}: .*private") as caught:
                    await submitter.submit(Submission(spec, "local"))
                assert caught.value.violations[0].field == field
            hub.failures.extend([503] * 9)
            spec = world.spec() | {"model": {"uri": "hf://org/down"}}
            with pytest.raises(Unavailable, match=r"^model.uri: hf://org/down.* cannot be read now"):
                await submitter.submit(Submission(spec, "local"))

    run(scenario)


def test_a_server_that_was_not_opened_reads_nothing(tmp_path: Path, hub: Hub) -> None:
    for uri in ("hf://org/tiny", "hf://datasets/org/tiny"):
        with pytest.raises(InvalidInput, match=r"sources.hub"):
            sources(hub, tmp_path, hub=False).exact(uri, "dataset" if "datasets" in uri else "model")
    assert hub.requests == []


def test_a_short_outage_and_a_cut_are_outlived(tmp_path: Path, hub: Hub) -> None:
    rows = parquet(*({"prompt": f"{i}" * 50} for i in range(400)))
    hub.put("datasets/org/set", {"data/train.parquet": rows})
    hub.failures.extend([503, 502])
    hub.cuts["data/train.parquet"] = 1
    assert read_data(hub, tmp_path, "hf://datasets/org/set/train") == rows
    assert hub.cuts["data/train.parquet"] == 0
    assert set(hub.tokens_at_cdn) == {""}


def test_a_trickle_ends_at_the_time_limit(tmp_path: Path, hub: Hub) -> None:
    hub.put("datasets/org/set", {"train.jsonl": bytes(2000)})
    hub.trickles.add("train.jsonl")
    with pytest.raises(Unavailable, match=r"longer than 0.5 s.*sources.hub_seconds"):
        read_data(hub, tmp_path, "hf://datasets/org/set/train", hub_seconds=0.5)


def test_closing_ends_a_read(tmp_path: Path, hub: Hub) -> None:
    hub.put("datasets/org/set", {"train.jsonl": bytes(2000)})
    hub.trickles.add("train.jsonl")

    async def scenario() -> None:
        opened = sources(hub, tmp_path)

        def read(uri: str) -> None:
            with opened.data(uri):
                pass

        reading = asyncio.create_task(opened.in_thread("hf://datasets/org/set/train", read))
        await asyncio.to_thread(hub.trickling.wait, 10)
        opened.close()
        with pytest.raises(Unavailable, match="shutting down"):
            await reading

    run(scenario)


@pytest.mark.parametrize("name", ["train.jsonl", "train.parquet"])
def test_other_bytes_than_listed_are_never_used(name: str, tmp_path: Path, hub: Hub) -> None:
    hub.put("datasets/org/set", {name: b"a" * 64})
    hub.replaced[name] = b"b" * 64
    with pytest.raises(Corrupt, match="is not the file that the Hub lists"):
        read_data(hub, tmp_path, "hf://datasets/org/set/train")
    del hub.replaced[name]
    assert read_data(hub, tmp_path, "hf://datasets/org/set/train") == b"a" * 64


def test_offline_reads_what_the_cache_has(tmp_path: Path, hub: Hub) -> None:
    hub.put("datasets/org/set", {"train.jsonl": b"a\n"})
    read_data(hub, tmp_path, "hf://datasets/org/set/train")
    asked = len(hub.requests)
    assert read_data(hub, tmp_path, "hf://datasets/org/set/train", hub_offline=True) == b"a\n"
    with pytest.raises(NotFound, match=r"not in the cache.*sources.hub_offline"):
        read_data(hub, tmp_path, "hf://datasets/org/other/train", hub_offline=True)
    assert len(hub.requests) == asked


def test_the_cache_is_kept_under_its_size(tmp_path: Path, hub: Hub) -> None:
    for number in range(4):
        hub.put(f"datasets/org/set{number}", {"train.jsonl": bytes([97 + number]) * 1000})
        read_data(hub, tmp_path, f"hf://datasets/org/set{number}/train", hub_cache_bytes=2500)
    kept = [path for path in (tmp_path / "hub").rglob("blobs/*") if path.is_file()]
    assert len(kept) == 2


def test_shards_of_a_split_are_one_set(tmp_path: Path, hub: Hub) -> None:
    shards = {f"data/train-0000{i}-of-00003.parquet": parquet({"prompt": f"p{i}"}) for i in range(3)}
    hub.put("datasets/org/set", shards | {"data/test-00000-of-00001.parquet": parquet({"prompt": "held out"})})
    with sources(hub, tmp_path).data("hf://datasets/org/set/train") as path:
        assert [row["prompt"] for row in pq.read_table(path).to_pylist()] == ["p0", "p1", "p2"]
    hub.put("datasets/org/lines", {"train-1.jsonl": b"one", "train-2.jsonl": b"two\n"})
    assert read_data(hub, tmp_path, "hf://datasets/org/lines/train") == b"one\ntwo\n"


def test_a_model_of_the_hub_is_imported_under_a_name(tmp_path: Path, hub: Hub) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, learners=0, workers=0, schedulers=0) as world:
            folder = write_model(tmp_path / "policy")
            hub.put_folder("org/tiny", folder)
            servicer = ArtifactServicer(world.store, None, sources(hub, tmp_path), tmp_path)  # type: ignore[arg-type]
            request = artifact_pb2.ImportModelRequest(name="tiny", uri="hf://org/tiny")
            answer = await servicer.ImportModel(request, None)  # type: ignore[arg-type]
            assert answer.model.digest == upload_model_folder(world.store, folder).digest

    run(scenario)


def test_a_bare_name_gets_the_hint(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, learners=0, workers=0, schedulers=0) as world:
            spec = _with_model(world, "org/tiny")
            with pytest.raises(InvalidData, match="write hf://org/tiny"):
                await world.submitter().submit(Submission(spec, "local"))

    run(scenario)


def _with_model(world: World, uri: str) -> dict[str, Any]:
    return world.spec() | {"model": {"uri": uri}}
