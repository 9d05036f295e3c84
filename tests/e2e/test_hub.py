"""A local stack that reads model and prompts from the Hub: the result is that of the same files on disk."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.stack import Stack, finish, running_stack
from tests.e2e.tasks import changed, count_symbol
from tests.servers.hub import Hub, running_hub


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with running_hub() as hub:
        yield hub


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, hub: Hub) -> Iterator[Stack]:
    environment = {"QUATRAIN_SOURCES__HUB_ENDPOINT": hub.endpoint}
    with running_stack(tmp_path_factory.mktemp("hub"), environment=environment) as stack:
        yield stack


def test_a_job_from_the_hub_has_the_weights_of_its_twin_from_files(stack: Stack, hub: Hub, tmp_path: Path) -> None:
    spec = changed(count_symbol(tmp_path), ppo__steps=3)
    folder = Path(spec["model"]["uri"].removeprefix("file://"))
    commit = hub.put_folder("org/tiny", folder, {"pytorch_model.bin": b"never fetched"})
    rows = hub.put(
        "datasets/org/prompts", {"data/train-00000-of-00001.jsonl": Path(spec["ppo"]["prompts"]).read_bytes()}
    )
    from_hub = changed(spec, model__uri="hf://org/tiny", ppo__prompts="hf://datasets/org/prompts/train")
    with stack.client() as client:
        job = finish(stack, client, client.submit(from_hub))
        twin = finish(stack, client, client.submit(spec))
    assert job.weights_sha256 == twin.weights_sha256 != ""
    assert f"hf://datasets/org/prompts@{rows}/train" in str(job)
    assert not any("pytorch_model" in path for _, path in hub.requests)
    assert any(commit in path for _, path in hub.requests if "/resolve/" in path)
