"""Copies of whole stores, between folders and a real MinIO."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.servers.s3 import S3Server

from quatrain.errors import Corrupt, InvalidInput
from quatrain.storage.copy import Copied, copy_store, main, open_place
from quatrain.storage.local import LocalStore
from quatrain.storage.memory import MemoryStore
from quatrain.storage.protocol import ObjectStore

OBJECTS = {"active/a": b"{}", "jobs/a/events/0000000001": b"one", "models/m/model.safetensors": b"w" * 3_000_000}


class Damaging(MemoryStore):
    """A fake: what is written to it is another byte afterwards."""

    def put_file(self, key: str, path: Path) -> None:
        self.put(key, path.read_bytes()[:-1] + b"?")


def filled(store: ObjectStore) -> ObjectStore:
    for key, data in OBJECTS.items():
        store.put(key, data)
    return store


def contents(store: ObjectStore) -> dict[str, bytes]:
    return {stat.key: store.get(stat.key) for stat in store.list("")}


@pytest.fixture
def minio(minio_server: S3Server) -> Callable[[], ObjectStore]:
    return minio_server.new_store


def test_a_bucket_comes_back_from_a_folder(minio: Callable[[], ObjectStore], tmp_path: Path) -> None:
    backup, restored = LocalStore(tmp_path), minio()

    copy_store(filled(minio()), backup)
    done = copy_store(backup, restored)

    assert contents(restored) == OBJECTS
    assert done == Copied(written=3, size=sum(map(len, OBJECTS.values())), present=0, removed=0)


def test_a_copy_that_was_broken_off_goes_on(minio: Callable[[], ObjectStore]) -> None:
    source, target = filled(MemoryStore()), minio()
    target.put("jobs/a/events/0000000001", b"one")

    assert copy_store(source, target).present == 1
    assert copy_store(source, target).written == 0
    assert contents(target) == OBJECTS


def test_what_changed_is_copied_again() -> None:
    source, target = filled(MemoryStore()), MemoryStore()
    copy_store(source, target)

    source.put("active/a", b"[]")

    assert copy_store(source, target).written == 1
    assert contents(target) == contents(source)


def test_what_went_stays_unless_it_is_to_be_removed() -> None:
    source, target = filled(MemoryStore()), filled(MemoryStore())
    source.delete("active/a")

    copy_store(source, target)
    assert contents(target) == OBJECTS

    assert copy_store(source, target, delete=True).removed == 1
    assert contents(target) == contents(source)


def test_a_check_finds_other_bytes_of_the_same_size() -> None:
    source, target = filled(MemoryStore()), filled(MemoryStore())
    target.put("jobs/a/events/0000000001", b"two")
    assert copy_store(source, target).written == 0, "the size is the same, and it was written later"

    assert copy_store(source, target, check=True).written == 1

    assert contents(target) == OBJECTS


@pytest.mark.usefixtures("quick_rereads")
def test_damage_on_the_way_is_noticed() -> None:
    with pytest.raises(Corrupt, match="sha256"):
        copy_store(filled(MemoryStore()), Damaging())


def test_the_command_says_what_it_did(minio_server: S3Server, tmp_path: Path) -> None:
    store = minio_server.new_store()
    filled(store)
    bucket = f"http://{minio_server.endpoint}/{store.name.rpartition('/')[2]}"
    keys = {"AWS_ACCESS_KEY_ID": minio_server.access_key, "AWS_SECRET_ACCESS_KEY": minio_server.secret_key}
    command = [sys.executable, "-m", "quatrain.storage.copy", bucket, str(tmp_path / "backup")]

    done = subprocess.run(command, env={**os.environ, **keys}, capture_output=True, text=True, timeout=120, check=False)

    assert done.stdout == "3 objects (3000005 bytes) written, 0 were there\n", done.stderr
    assert contents(LocalStore(tmp_path / "backup")) == OBJECTS


@pytest.mark.parametrize("place", ["http://localhost:9000", "http://k:s@localhost/b", "s3://bucket", "no-such-folder"])
def test_places_that_are_none_are_refused(place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidInput):
        open_place(place, ("key", "secret"), "us-east-1", must_exist=True)
    assert main([place, str(tmp_path)], {}) == 1
    assert place in capsys.readouterr().err


def test_a_bucket_needs_keys() -> None:
    with pytest.raises(InvalidInput, match="AWS_ACCESS_KEY_ID"):
        open_place("http://localhost:9000/bucket", ("", ""), "us-east-1", must_exist=True)
