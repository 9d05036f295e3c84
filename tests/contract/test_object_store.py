"""What every object store must do: one suite, run against each implementation and against real servers."""

import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quatrain.errors import InvalidInput, NotFound
from quatrain.storage import ObjectStore, probe_store
from quatrain.storage.local import LocalStore
from quatrain.storage.memory import MemoryStore

KINDS = ["local", "memory", "minio", "versitygw"]


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "local":
        return LocalStore(tmp_path / "store")
    if request.param == "memory":
        return MemoryStore()
    opened: ObjectStore = request.getfixturevalue(f"{request.param}_server").new_store()
    return opened


def keys_of(store: ObjectStore, prefix: str, start_after: str = "", limit: int | None = None) -> list[str]:
    return [stat.key for stat in store.list(prefix, start_after=start_after, limit=limit)]


def test_probe_accepts_it(store: ObjectStore) -> None:
    probe_store(store)

    assert store.list("probe/") == []


def test_put_if_absent_creates_once(store: ObjectStore) -> None:
    assert store.put_if_absent("jobs/a/events/0000000001", b"mine")

    assert not store.put_if_absent("jobs/a/events/0000000001", b"other")
    assert not store.put_if_absent("jobs/a/events/0000000001", b"mine"), "the same bytes are taken, too"
    assert store.get("jobs/a/events/0000000001") == b"mine"


def test_concurrent_put_if_absent_has_exactly_one_winner(store: ObjectStore) -> None:
    writers, rounds = 8, 5
    barrier = threading.Barrier(writers)

    def write(key: str, data: bytes) -> bool:
        barrier.wait(10)
        return store.put_if_absent(key, data)

    with ThreadPoolExecutor(writers) as pool:
        for number in range(rounds):
            key = f"race/{number}"
            offers = [f"{writer}-{secrets.token_hex(500)}".encode() for writer in range(writers)]
            won = list(pool.map(write, [key] * writers, offers))
            assert won.count(True) == 1
            assert store.get(key) == offers[won.index(True)]


def test_put_replaces_and_is_read_at_once(store: ObjectStore) -> None:
    for number in range(5):
        store.put("a/b", str(number).encode())
        assert store.get("a/b") == str(number).encode()


@pytest.mark.parametrize("data", [b"", b"\0", bytes(range(256)) * 5000], ids=["empty", "one", "1.2 MiB"])
def test_bytes_come_back_as_they_were(store: ObjectStore, data: bytes) -> None:
    assert store.put_if_absent("created", data)
    store.put("put", data)

    assert store.get("created") == store.get("put") == data
    found = store.stat("put")
    assert found is not None
    assert (found.key, found.size) == ("put", len(data))
    assert abs(found.modified - time.time()) < 60


def test_range_is_cut_at_the_end(store: ObjectStore) -> None:
    store.put("a", b"0123456789")

    assert store.get_range("a", 2, 3) == b"234"
    assert store.get_range("a", 8, 100) == b"89"
    assert store.get_range("a", 10, 1) == b""
    assert store.get_range("a", 100, 1) == b""
    assert store.get_range("a", 3, 0) == b""
    with pytest.raises(InvalidInput):
        store.get_range("a", -1, 2)


def test_missing_objects(store: ObjectStore, tmp_path: Path) -> None:
    missing: list[Callable[[], object]] = [
        lambda: store.get("no/such"),
        lambda: store.get_range("no/such", 0, 1),
        lambda: store.get_range("no/such", 0, 0),
        lambda: store.get_file("no/such", tmp_path / "out"),
        lambda: store.put_file("x", tmp_path / "no file"),
    ]
    for call in missing:
        with pytest.raises(NotFound):
            call()
    assert not (tmp_path / "out").exists()
    assert store.stat("no/such") is None
    assert store.list("no/") == []
    store.delete("no/such")


def test_delete_removes(store: ObjectStore) -> None:
    store.put("a/b/c", b"1")
    store.put("a/d", b"2")

    store.delete("a/b/c")
    store.delete("a/b/c")

    assert store.stat("a/b/c") is None
    assert keys_of(store, "") == ["a/d"]
    assert store.put_if_absent("a/b/c", b"again")


def test_list_is_in_byte_order_with_prefix_and_start_after(store: ObjectStore) -> None:
    keys = ["a.b", "a/b", "a/b.c/d", "a/b0", "a0", "aé/x", "b/1", "b/10", "b/2"]
    keys.remove("a/b")  # `a/b0` and `a/b.c/d` sort around it; an object cannot be a folder as well
    for key in reversed(keys):
        store.put(key, key.encode())

    assert keys_of(store, "") == sorted(keys, key=str.encode)
    assert keys_of(store, "a") == ["a.b", "a/b.c/d", "a/b0", "a0", "aé/x"]
    assert keys_of(store, "a/") == ["a/b.c/d", "a/b0"]
    assert keys_of(store, "a/b") == ["a/b.c/d", "a/b0"]
    assert keys_of(store, "b/", start_after="b/1") == ["b/10", "b/2"]
    assert keys_of(store, "b/", start_after="b/15") == ["b/2"]
    assert keys_of(store, "b/", start_after="b/2") == []
    assert keys_of(store, "a", start_after="a/b.c") == ["a/b.c/d", "a/b0", "a0", "aé/x"]
    assert keys_of(store, "", limit=3) == ["a.b", "a/b.c/d", "a/b0"]
    assert keys_of(store, "b/", start_after="b/1", limit=1) == ["b/10"]


def test_list_shows_more_than_one_page(store: ObjectStore) -> None:
    keys = [f"events/{number:010d}" for number in range(1100)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda key: store.put(key, b"x"), keys))

    assert keys_of(store, "events/") == keys
    assert keys_of(store, "events/", start_after=keys[1050]) == keys[1051:]


def test_files_stream_in_and_out(store: ObjectStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(secrets.token_bytes(3 << 20) + b"end")

    store.put_file("folder/file", source)
    store.get_file("folder/file", tmp_path / "deep" / "copy")

    assert (tmp_path / "deep" / "copy").read_bytes() == source.read_bytes()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["copy"], "no temporary file is left"


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/a",
        "a/",
        "a//b",
        "../a",
        "a/../b",
        "a/./b",
        ".hidden",
        "a\\b",
        "a\nb",
        "a\0b",
        "x" * 1025,
        "x" * 256,
        "\ud800",
    ],
)
def test_keys_that_are_not_plain_are_refused(store: ObjectStore, key: str) -> None:
    with pytest.raises(InvalidInput):
        store.put(key, b"")
    with pytest.raises(InvalidInput):
        store.put_if_absent(key, b"")
    with pytest.raises(InvalidInput):
        store.get(key)


def test_prefixes_that_climb_are_refused(store: ObjectStore) -> None:
    for prefix in ("../", "a/../", "/", "a//", "..", "a/.."):
        with pytest.raises(InvalidInput):
            store.list(prefix)


names = st.text("ab.-0é", min_size=1, max_size=3).filter(lambda name: name not in (".", "..") and name[0] != ".")
object_keys = st.lists(names, min_size=1, max_size=3).map("/".join)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keys=st.sets(object_keys, max_size=12), prefix=object_keys, after=object_keys, limit=st.integers(1, 5))
def test_local_folder_lists_like_memory(
    keys: set[str], prefix: str, after: str, limit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    flat = {key for key in keys if not any(other.startswith(f"{key}/") for other in keys)}
    local, memory = LocalStore(tmp_path_factory.mktemp("local")), MemoryStore()
    for key in flat:
        assert local.put_if_absent(key, b"1")
        assert memory.put_if_absent(key, b"1")

    for start in ("", prefix, prefix[:1]):
        expected = [key for key in sorted(flat, key=str.encode) if key.startswith(start)]
        assert keys_of(local, start) == keys_of(memory, start) == expected
        later = [key for key in expected if key.encode() > after.encode()][:limit]
        assert keys_of(local, start, after, limit) == keys_of(memory, start, after, limit) == later
