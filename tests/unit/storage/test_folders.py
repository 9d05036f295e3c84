"""Folders in a store and verified local copies of them."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from quatrain.digests import sha256_hex
from quatrain.errors import AlreadyExists, Corrupt, InvalidData, InvalidInput, NotFound
from quatrain.storage.folders import (
    FolderCache,
    prefix_of,
    read_manifest,
    read_object,
    upload_folder,
    upload_model_folder,
)
from quatrain.storage.memory import MemoryStore


class CountingStore(MemoryStore):
    """A memory store that counts file reads."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def get_file(self, key: str, path: Path) -> None:
        self.reads += 1
        super().get_file(key, path)


def make_folder(root: Path, name: str = "source", **files: str) -> Path:
    folder = root / name
    for path, text in {"config_json": "{}", "deep/weights": name, **files}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


def test_a_folder_has_its_files_and_a_manifest_whose_digest_is_its_digest(tmp_path: Path) -> None:
    store = MemoryStore()
    prefix = "jobs/j/ppo/policy/1-1"
    digest = upload_folder(store, prefix, make_folder(tmp_path))

    assert [stat.key.removeprefix(prefix + "/") for stat in store.list(prefix)] == [
        "config_json",
        "deep/weights",
        "manifest.json",
    ]
    manifest = store.get(f"{prefix}/manifest.json")
    assert sha256_hex(manifest) == digest
    assert json.loads(manifest)["files"]["config_json"] == {"sha256": sha256_hex(b"{}"), "size": 2}
    assert list(read_manifest(store, prefix, digest)) == ["config_json", "deep/weights"]


def test_the_same_files_are_the_same_model_and_not_written_twice(tmp_path: Path) -> None:
    store = MemoryStore()
    first = upload_model_folder(store, make_folder(tmp_path))
    copy = tmp_path / "elsewhere"
    (tmp_path / "source").rename(copy)

    assert upload_model_folder(store, copy) == first
    assert first.uri == f"sha256:{first.digest}"
    assert upload_folder(store, f"models/{first.digest}", copy) == first.digest


def test_a_prefix_with_another_folder_is_refused(tmp_path: Path) -> None:
    store = MemoryStore()
    first = upload_folder(store, "p", make_folder(tmp_path, "one"))
    before = {stat.key: store.get(stat.key) for stat in store.list("p/")}

    with pytest.raises(AlreadyExists):
        upload_folder(store, "p", make_folder(tmp_path, "two"))

    assert {stat.key: store.get(stat.key) for stat in store.list("p/")} == before
    assert read_manifest(store, "p", first)


def test_folders_that_cannot_be_uploaded(tmp_path: Path) -> None:
    store = MemoryStore()
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "none", tmp_path / "empty", make_folder(tmp_path, **{"manifest.json": "{}"})):
        with pytest.raises(InvalidData):
            upload_folder(store, "p", folder)
    assert store.list("") == []


def test_an_upload_that_never_finished_is_not_found(tmp_path: Path) -> None:
    store = MemoryStore()
    digest = upload_folder(store, "p", make_folder(tmp_path))
    store.delete("p/manifest.json")

    with pytest.raises(NotFound):
        FolderCache(store, tmp_path / "cache", 1 << 20).fetch("store:p", digest)


@pytest.mark.parametrize("text", ["no json", "{}", '{"files": []}', '{"files": {"../x": {"sha256": "", "size": 0}}}'])
def test_manifests_that_are_none_are_corrupt(text: str) -> None:
    store = MemoryStore()
    store.put("p/manifest.json", text.encode())

    with pytest.raises(Corrupt, match="no manifest"):
        read_manifest(store, "p", sha256_hex(text.encode()))


@pytest.mark.usefixtures("quick_rereads")
def test_read_object_checks_the_digest() -> None:
    store = MemoryStore()
    store.put("a", b"data")

    assert read_object(store, "a", sha256_hex(b"data")) == b"data"
    with pytest.raises(Corrupt, match="a has sha256"):
        read_object(store, "a", sha256_hex(b"other"))


def test_references() -> None:
    digest = "0" * 64
    assert prefix_of("store:jobs/x") == "jobs/x"
    assert prefix_of(f"sha256:{digest}") == f"models/{digest}"
    for uri in ("", "store:", "store:../x", "sha256:12", "sha256:" + "A" * 64, "s3://bucket/x", "file:///x", "/x"):
        with pytest.raises(InvalidInput):
            prefix_of(uri)


def test_the_cache_fetches_once_even_for_many_at_once(tmp_path: Path) -> None:
    store = CountingStore()
    folder = upload_model_folder(store, make_folder(tmp_path))
    cache = FolderCache(store, tmp_path / "cache", 1 << 20)

    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(lambda _: cache.fetch(f"sha256:{folder.digest}", folder.digest), range(16)))

    (path,) = paths
    assert store.reads == 2
    assert (path / "deep" / "weights").read_text() == "source"
    assert {entry.name for entry in path.iterdir()} == {"config_json", "deep"}


def test_a_copy_that_was_damaged_before_this_process_is_fetched_again(tmp_path: Path) -> None:
    store = CountingStore()
    folder = upload_model_folder(store, make_folder(tmp_path))
    path = FolderCache(store, tmp_path / "cache", 1 << 20).fetch(f"sha256:{folder.digest}", folder.digest)
    (path / "deep" / "weights").write_text("sourcf")

    again = FolderCache(store, tmp_path / "cache", 1 << 20).fetch(f"sha256:{folder.digest}", folder.digest)

    assert (again / "deep" / "weights").read_text() == "source"
    assert store.reads == 4


def test_the_least_recently_used_copies_go_when_they_are_too_big(tmp_path: Path) -> None:
    store = CountingStore()
    folders = [upload_model_folder(store, make_folder(tmp_path, name, big="x" * 1000)) for name in ("a", "b", "c")]
    cache = FolderCache(store, tmp_path / "cache", 2500, grace=10)
    for age, folder in ((300, folders[0]), (200, folders[1])):
        path = cache.fetch(folder.uri, folder.digest)
        os.utime(path, (time.time() - age, time.time() - age))

    cache.fetch(folders[2].uri, folders[2].digest)

    kept = {path.name for path in (tmp_path / "cache").iterdir()}
    assert kept == {folders[1].digest, folders[2].digest}
    cache.fetch(folders[0].uri, folders[0].digest)
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {folders[2].digest, folders[0].digest}


def test_a_copy_in_use_is_kept_although_it_is_too_big(tmp_path: Path) -> None:
    store = MemoryStore()
    folders = [upload_model_folder(store, make_folder(tmp_path, name)) for name in ("a", "b")]
    cache = FolderCache(store, tmp_path / "cache", 1, grace=60)

    paths = [cache.fetch(folder.uri, folder.digest) for folder in folders]

    assert all(path.is_dir() for path in paths)


def test_local_folders_are_returned_as_they_are(tmp_path: Path) -> None:
    cache = FolderCache(MemoryStore(), tmp_path / "cache", 1)

    assert cache.fetch(f"file://{tmp_path}", "") == tmp_path
    with pytest.raises(NotFound):
        cache.fetch(f"file://{tmp_path}/none", "")
    with pytest.raises(InvalidInput):
        cache.fetch("file://relative", "")
    with pytest.raises(InvalidInput):
        cache.fetch("store:p", "../../etc")
