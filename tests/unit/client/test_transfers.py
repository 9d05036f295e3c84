import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.client.fake_api import FakeApi
from tests.unit.client.folders import write_model

from quatrain.backoff import Backoff
from quatrain.client import AsyncClient
from quatrain.client.download_record import RECORD
from quatrain.client.uploads import CHUNK_BYTES
from quatrain.digests import sha256_hex
from quatrain.errors import Corrupt, InvalidData, InvalidInput, NotFound, Unavailable

BIG = bytes(range(256)) * 4096 * 3 + b"end"  # 3 MiB and a little


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi() as running:
        yield running


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quatrain.client.uploads.BACKOFF", Backoff(0.0, 0.0))
    monkeypatch.setattr("quatrain.client.downloads.BACKOFF", Backoff(0.0, 0.0))


def upload(api: FakeApi, path: Path) -> str:
    async def go() -> str:
        async with AsyncClient(api.target) as client:
            return (await client.upload(path)).uri

    return asyncio.run(go())


def download(api: FakeApi, to: Path, *, uri: str = "sha256:m", force: bool = False) -> list[Path]:
    async def go() -> list[Path]:
        async with AsyncClient(api.target) as client:
            return await client.download_model(uri, to, force=force)

    return asyncio.run(go())


def sent_bytes(api: FakeApi) -> int:
    return sum(len(message.data) for kind, message in api.seen if kind == "UploadRequest")


@pytest.mark.parametrize("content", [b"", b"x", bytes(CHUNK_BYTES), BIG])
def test_a_file_arrives_under_its_digest(api: FakeApi, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(content)

    uri = upload(api, path)

    assert uri == f"sha256:{sha256_hex(content)}"
    assert api.files[sha256_hex(content)] == content


def test_what_is_there_is_not_sent_again(api: FakeApi, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(BIG)
    upload(api, path)
    before = sent_bytes(api)

    upload(api, path)

    assert sent_bytes(api) == before


def test_an_upload_goes_on_where_the_line_broke(api: FakeApi, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(BIG)
    api.faults.upload_after_bytes = [1, 2 * CHUNK_BYTES, 1]

    upload(api, path)

    assert api.files[sha256_hex(BIG)] == BIG
    offsets = [message.offset for kind, message in api.seen if kind == "UploadRequest"]
    assert offsets == sorted(offsets)
    assert sent_bytes(api) < len(BIG) + 3 * CHUNK_BYTES


def test_an_upload_that_gets_no_further_gives_up(api: FakeApi, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"")
    api.faults.upload_after_bytes = [0] * 20

    with pytest.raises(Unavailable, match="line broke"):
        upload(api, path)

    assert len(api.faults.upload_after_bytes) == 15


def test_a_file_that_cannot_be_read_is_named(api: FakeApi, tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=r"missing\.jsonl cannot be read"):
        upload(api, tmp_path / "missing.jsonl")


def test_a_model_folder_is_imported_without_what_does_not_belong_to_it(api: FakeApi, tmp_path: Path) -> None:
    async def go() -> list[int]:
        async with AsyncClient(api.target) as client:
            first = await client.import_model(folder, name="tiny")
            second = await client.import_model(folder, name="tiny")
            assert [model.number for model in await client.list_models()] == [1, 2]
            return [first.number, second.number]

    folder = write_model(tmp_path / "m")

    assert asyncio.run(go()) == [1, 2]
    [content] = api.folders.values()
    assert sorted(content) == ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert min(api.patience) > 12 * 3600, "the server may copy a large model over a slow store"


def test_a_folder_that_is_no_model_costs_no_upload(api: FakeApi, tmp_path: Path) -> None:
    async def go() -> None:
        async with AsyncClient(api.target) as client:
            await client.import_model(tmp_path)

    with pytest.raises(InvalidData, match=r"config\.json"):
        asyncio.run(go())

    assert api.seen == []


def test_a_download_is_the_folder(api: FakeApi, tmp_path: Path) -> None:
    api.folders["sha256:m"] = {"config.json": b"{}", "deep/weights": BIG, "empty": b""}

    paths = download(api, tmp_path / "to")

    assert [path.relative_to(tmp_path / "to").as_posix() for path in paths] == ["config.json", "deep/weights", "empty"]
    assert (tmp_path / "to" / "deep" / "weights").read_bytes() == BIG
    assert (tmp_path / "to" / "empty").read_bytes() == b""
    assert not list((tmp_path / "to").rglob("*.part"))


def test_a_download_goes_on_where_the_line_broke(api: FakeApi, tmp_path: Path) -> None:
    api.folders["sha256:m"] = {"a": b"whole", "b": BIG}
    api.faults.download_after_bytes = [2 * CHUNK_BYTES]

    download(api, tmp_path)

    received = [dict(message.received) for kind, message in api.seen if kind == "DownloadRequest"]
    assert received == [{}, {"a": 5, "b": 2 * CHUNK_BYTES}]
    assert (tmp_path / "b").read_bytes() == BIG
    assert (tmp_path / "a").read_bytes() == b"whole"


def test_a_second_download_fetches_nothing_that_is_there(api: FakeApi, tmp_path: Path) -> None:
    api.folders["sha256:m"] = {"a": b"whole", "b": BIG}
    download(api, tmp_path)
    api.faults.download_after_bytes = [1]  # one byte more than nothing would break it

    download(api, tmp_path)

    assert api.faults.download_after_bytes == []
    assert (tmp_path / "b").read_bytes() == BIG


@pytest.mark.parametrize("there", [b"other", b"a longer file that was there before"])
def test_another_file_of_that_name_is_replaced_by_force_only(api: FakeApi, tmp_path: Path, there: bytes) -> None:
    api.folders["sha256:m"] = {"a": b"whole"}
    (tmp_path / "a").write_bytes(there)
    (tmp_path / "notes").write_bytes(b"mine")

    with pytest.raises(InvalidInput, match=r"not downloaded by this command: a, notes; .*--force"):
        download(api, tmp_path)
    assert (tmp_path / "a").read_bytes() == there
    download(api, tmp_path, force=True)

    assert (tmp_path / "a").read_bytes() == b"whole"
    assert (tmp_path / "notes").read_bytes() == b"mine"


def test_a_folder_with_another_model_is_refused(api: FakeApi, tmp_path: Path) -> None:
    api.folders |= {"sha256:m": {"a": b"whole"}, "sha256:n": {"a": b"other"}}
    download(api, tmp_path)

    with pytest.raises(InvalidInput, match="model sha256:m, where model sha256:n was asked for"):
        download(api, tmp_path, uri="sha256:n")

    assert (tmp_path / "a").read_bytes() == b"whole"


def test_a_file_that_was_changed_since_is_kept(api: FakeApi, tmp_path: Path) -> None:
    api.folders["sha256:m"] = {"a": b"whole"}
    download(api, tmp_path)
    (tmp_path / "a").write_bytes(b"mine!")

    with pytest.raises(InvalidInput, match="changed or is somebody's own"):
        download(api, tmp_path)

    assert (tmp_path / "a").read_bytes() == b"mine!"


def test_a_place_that_cannot_be_is_said(api: FakeApi, tmp_path: Path) -> None:
    api.folders["sha256:m"] = {"a": b"whole"}
    (tmp_path / "file").write_bytes(b"mine")

    with pytest.raises(InvalidInput, match="that is a file"):
        download(api, tmp_path / "file")
    with pytest.raises(InvalidInput, match="a part of this path is a file"):
        download(api, tmp_path / "file" / "below")
    with pytest.raises(InvalidInput, match="name a shorter path"):
        download(api, tmp_path / ("x" * 300))
    with pytest.raises(InvalidInput, match="/proc"):
        download(api, Path("/proc/nothing/here"))

    assert (tmp_path / "file").read_bytes() == b"mine"


def test_wrong_bytes_are_fetched_again_once(api: FakeApi, tmp_path: Path) -> None:
    api.folders["sha256:m"] = {"a": b"whole", "b": b"other"}
    api.faults.wrong_bytes = 1

    download(api, tmp_path)

    assert (tmp_path / "a").read_bytes() == b"whole"


def test_bytes_that_stay_wrong_are_never_put_in_place(api: FakeApi, tmp_path: Path) -> None:
    api.folders["sha256:m"] = {"a": b"whole"}
    api.faults.wrong_bytes = 9

    with pytest.raises(Corrupt, match="a: sha256"):
        download(api, tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == [RECORD]


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", "a/../../evil", "", "a\\b"])
def test_a_path_that_leads_out_of_the_folder_is_refused(api: FakeApi, tmp_path: Path, path: str) -> None:
    api.folders["sha256:m"] = {path: b"x"}

    with pytest.raises(Corrupt, match="nothing is written"):
        download(api, tmp_path / "to")

    assert not (tmp_path / "evil").exists()


def test_what_is_not_there_is_not_found(api: FakeApi, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        download(api, tmp_path)
