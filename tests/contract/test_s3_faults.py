"""The S3 adapter on bad days: a real MinIO behind a proxy that loses, delays, cuts and flips."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.servers.fault_proxy import Fault, FaultProxy, fault_proxy
from tests.servers.s3 import S3Server

from quatrain.backoff import Backoff
from quatrain.errors import Corrupt, InvalidInput, NotFound, Unavailable
from quatrain.local.ports import free_port
from quatrain.storage import probe_store, s3_errors
from quatrain.storage.folders import FolderCache, upload_folder
from quatrain.storage.s3 import S3Address, S3Store


@dataclass(frozen=True)
class BadDay:
    """`store` goes through the proxy, `direct` to the same bucket without it."""

    store: S3Store
    direct: S3Store
    proxy: FaultProxy


@pytest.fixture
def bad_day(minio_server: S3Server) -> Iterator[BadDay]:
    direct = minio_server.new_store()
    with fault_proxy(minio_server.process.host, minio_server.process.port, FaultProxy) as proxy:
        address = minio_server.address(direct.name.rpartition("/")[2], total_wait=1.0)
        yield BadDay(S3Store(replace(address, endpoint=f"127.0.0.1:{proxy.port}")), direct, proxy)


@pytest.mark.parametrize("kind", ["500", "503", "drop", "html", "lose reply"])
def test_every_operation_survives_two_failures(
    bad_day: BadDay, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_errors, "_BACKOFF", Backoff(first=0.01, longest=0.01))
    twice = [Fault(method, kind) for method in ("PUT", "GET", "HEAD", "DELETE") for _ in range(2)]
    store = bad_day.store

    bad_day.proxy.faults[:] = twice
    store.put("put", b"data")
    assert store.get("put") == b"data"
    bad_day.proxy.faults[:] = twice
    assert [stat.key for stat in store.list("")] == ["put"]
    bad_day.proxy.faults[:] = twice
    assert store.stat("put") is not None
    bad_day.proxy.faults[:] = twice
    assert store.get_range("put", 1, 2) == b"at"
    bad_day.proxy.faults[:] = twice
    store.get_file("put", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"data"
    bad_day.proxy.faults[:] = twice
    store.delete("put")
    assert bad_day.direct.stat("put") is None


@pytest.mark.parametrize("kind", ["500", "503", "drop", "html", "lose reply"])
def test_creation_survives_failures_and_knows_its_own_write(bad_day: BadDay, kind: str) -> None:
    bad_day.proxy.faults[:] = [Fault("PUT", kind), Fault("PUT", kind)]

    assert bad_day.store.put_if_absent("event", b"nonce 1")
    assert not bad_day.store.put_if_absent("event", b"nonce 2")
    assert bad_day.direct.get("event") == b"nonce 1"


def test_creation_whose_reply_is_lost_and_that_lost_the_race_says_so(bad_day: BadDay) -> None:
    bad_day.direct.put("event", b"theirs")
    bad_day.proxy.faults[:] = [Fault("PUT", "lose reply")]

    assert not bad_day.store.put_if_absent("event", b"mine")


def test_creation_whose_read_back_fails_too_ends_right(bad_day: BadDay) -> None:
    bad_day.proxy.faults[:] = [Fault("PUT", "lose reply"), Fault("GET", "drop")]

    assert bad_day.store.put_if_absent("event", b"mine"), "the second PUT is told 412, and reads back its own bytes"


def test_truncated_reads_go_on_where_they_broke(bad_day: BadDay, tmp_path: Path) -> None:
    data = bytes(range(256)) * 20_000
    bad_day.direct.put("big", data)
    bad_day.proxy.faults[:] = [Fault("GET", "truncate")] * 3

    bad_day.store.get_file("big", tmp_path / "big")

    assert (tmp_path / "big").read_bytes() == data
    bad_day.proxy.faults[:] = [Fault("GET", "truncate")]
    assert bad_day.store.get("big") == data


def test_multipart_upload_survives_failures(bad_day: BadDay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quatrain.storage.s3.PART_SIZE", 5 << 20)
    data = bytes(range(256)) * (11 << 12)
    (tmp_path / "big").write_bytes(data)
    faults = [Fault("POST", "503"), Fault("PUT", "drop"), Fault("PUT", "500"), Fault("PUT", "lose reply")]
    bad_day.proxy.faults[:] = faults

    bad_day.store.put_file("big", tmp_path / "big")

    assert bad_day.proxy.faults == []
    assert bad_day.direct.get("big") == data


def test_a_store_that_stays_away_is_unavailable_in_bounded_time() -> None:
    store = S3Store(S3Address(f"127.0.0.1:{free_port()}", "bucket", "a", "b" * 8, secure=False, total_wait=0.5))

    for call in (lambda: store.put_if_absent("a", b""), lambda: store.get("a"), lambda: store.list("")):
        began = time.monotonic()
        with pytest.raises(Unavailable, match="cannot be reached"):
            call()
        assert time.monotonic() - began < 3


@pytest.mark.usefixtures("quick_rereads")
def test_a_bit_flipped_on_the_way_is_read_again_and_one_in_the_store_is_corrupt(
    bad_day: BadDay, tmp_path: Path
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "weights").write_bytes(b"weights" * 1000)
    digest = upload_folder(bad_day.direct, "models/x", tmp_path / "source")
    cache = FolderCache(bad_day.store, tmp_path / "cache", 1 << 30)

    bad_day.direct.put("models/x/weights", b"Weights" + b"weights" * 999)
    with pytest.raises(Corrupt, match="models/x/weights"):
        cache.fetch("store:models/x", digest)
    bad_day.direct.put("models/x/weights", b"weights" * 1000)
    bad_day.proxy.faults[:] = [Fault("GET", "flip")] * 5  # the manifest and all its further readings
    with pytest.raises(Corrupt, match=r"manifest\.json"):
        cache.fetch("store:models/x", digest)
    bad_day.proxy.faults[:] = [Fault("GET", "flip")] * 3
    assert (cache.fetch("store:models/x", digest) / "weights").read_bytes() == b"weights" * 1000


def test_the_probe_refuses_a_store_that_ignores_if_none_match(bad_day: BadDay) -> None:
    bad_day.proxy.strip.add("if-none-match")

    with pytest.raises(InvalidInput, match="ignores `If-None-Match") as refused:
        probe_store(bad_day.store)
    assert bad_day.store.name in refused.value.message
    assert refused.value.code_reason == "STORE_UNFIT"


def test_a_missing_bucket_and_wrong_keys_are_said_clearly(minio_server: S3Server) -> None:
    store = S3Store(minio_server.address("not-there", total_wait=0.5))
    with pytest.raises(InvalidInput, match="no such bucket"):
        store.ensure_bucket(create=False)
    with pytest.raises(Unavailable, match="the bucket is not there"):
        store.put_if_absent("a", b"")
    with pytest.raises(Unavailable, match="the bucket is not there"):
        store.list("")

    stranger = S3Store(replace(minio_server.address("not-there"), secret_key="wrong-secret"))
    with pytest.raises(Unavailable, match="access refused"):
        stranger.put_if_absent("a", b"")
    with pytest.raises(Unavailable, match="access refused"):
        stranger.put("a", b"")
    with pytest.raises((Unavailable, NotFound), match="access refused"):
        stranger.stat("a")


def test_addresses_that_are_none_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"storage\.endpoint"):
        S3Store(S3Address("host:port:what/", "bucket", "a", "b"))
    with pytest.raises(InvalidInput, match=r"storage\.bucket"):
        S3Store(S3Address("127.0.0.1:1", "No Bucket", "a", "b")).ensure_bucket(create=False)
