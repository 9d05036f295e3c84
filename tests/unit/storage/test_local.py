"""What only the local folder has: processes side by side, disks that fail, files that are left."""

import errno
import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from quatrain.errors import InvalidInput, Unavailable
from quatrain.storage.local import LocalStore
from quatrain.storage.memory import MemoryStore


def fail(code: int) -> None:
    raise OSError(code, os.strerror(code))


def race(root: Path, writer: int, keys: int) -> int:
    store = LocalStore(root)
    return sum(store.put_if_absent(f"events/{key}", b"%d" % writer) for key in range(keys))


def test_processes_create_each_object_once(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        won = pool.starmap(race, [(tmp_path, writer, 60) for writer in range(3)])

    assert sum(won) == 60
    assert len(LocalStore(tmp_path).list("events/")) == 60


@pytest.mark.parametrize(("code", "message"), [(errno.ENOSPC, "disk is full"), (errno.EROFS, "no permission")])
def test_a_disk_that_refuses_is_unavailable_and_leaves_nothing(
    code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path / "store")
    source = tmp_path / "source"
    source.write_bytes(b"1")
    monkeypatch.setattr(os, "fdatasync", lambda _: fail(code))

    with pytest.raises(Unavailable, match=message):
        store.put_if_absent("a/b", b"1")
    with pytest.raises(Unavailable, match=message):
        store.put("a/b", b"1")
    with pytest.raises(Unavailable, match=message):
        store.put_file("a/b", source)

    monkeypatch.undo()
    assert store.list("") == []
    assert list((tmp_path / "store" / ".partial").iterdir()) == []
    assert store.put_if_absent("a/b", b"1")


def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(Unavailable, match="local folder"):
        LocalStore(tmp_path / "file" / "store")


def test_an_object_is_never_a_folder_as_well(tmp_path: Path) -> None:
    for store in (LocalStore(tmp_path), MemoryStore()):
        store.put("a/b", b"1")
        for key in ("a", "a/b/c", "a/b/c/d"):
            with pytest.raises(InvalidInput, match=r"folder|under"):
                store.put(key, b"2")
            with pytest.raises(InvalidInput, match=r"folder|under"):
                store.put_if_absent(key, b"2")
            assert store.stat(key) is None
            store.delete(key)
        assert [stat.key for stat in store.list("")] == ["a/b"]


def test_deleting_leaves_no_empty_folders_and_races_with_writers(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)

    def churn(writer: int) -> None:
        for number in range(40):
            assert store.put_if_absent(f"a/b/{writer}-{number}", b"x")
            store.delete(f"a/b/{writer}-{number}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(churn, range(4)))

    assert [path.name for path in tmp_path.iterdir()] == [".partial"]


def test_files_of_the_store_are_readable_by_others(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put_if_absent("a", b"")
    store.put("b", b"")

    assert {os.stat(tmp_path / key).st_mode & 0o777 for key in "ab"} == {0o644}


def test_what_killed_writers_left_goes_after_a_day(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("a", b"1")
    old, new = tmp_path / ".partial" / "old", tmp_path / ".partial" / "new"
    for path in (old, new):
        path.write_bytes(b"half")
    yesterday = new.stat().st_mtime - 25 * 3600
    os.utime(old, (yesterday, yesterday))
    os.utime(tmp_path / "a", (yesterday, yesterday))

    again = LocalStore(tmp_path)

    assert (old.exists(), new.exists()) == (False, True)
    assert again.get("a") == b"1"
