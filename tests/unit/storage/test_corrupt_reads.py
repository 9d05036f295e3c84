"""Damage on the way and damage in the store."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from quatrain.digests import sha256_hex
from quatrain.errors import AlreadyExists, Corrupt, NotFound
from quatrain.storage import corrupt_reads
from quatrain.storage.folders import fetch_folder, read_file, read_manifest, read_object, upload_folder
from quatrain.storage.memory import MemoryStore

DATA = b"a batch"
DIGEST = sha256_hex(DATA)


class BadLine(MemoryStore):
    """The first so many readings of each object come with another bit."""

    def __init__(self, flips: int) -> None:
        super().__init__()
        self.flips = flips
        self.readings: dict[str, int] = {}

    def get(self, key: str) -> bytes:
        data = super().get(key)
        self.readings[key] = self.readings.get(key, 0) + 1
        return data if self.readings[key] > self.flips else bytes([data[0] ^ 1]) + data[1:]

    def get_file(self, key: str, path: Path) -> None:
        path.write_bytes(self.get(key))


Read = Callable[[BadLine, Path], bytes]


def as_object(store: BadLine, _: Path) -> bytes:
    return read_object(store, "x", DIGEST)


def as_file(store: BadLine, folder: Path) -> bytes:
    read_file(store, "x", DIGEST, folder / "x")
    return (folder / "x").read_bytes()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, none of which lasts."""
    made: list[float] = []
    # Not time.sleep itself, in which threads of earlier tests may still wait.
    monkeypatch.setattr(corrupt_reads, "time", SimpleNamespace(sleep=made.append))
    return made


@pytest.mark.parametrize("read", [as_object, as_file])
@pytest.mark.parametrize("flips", range(6))
def test_an_object_is_damaged_when_five_readings_say_so(
    tmp_path: Path, pauses: list[float], read: Read, flips: int
) -> None:
    store = BadLine(flips)
    store.put("x", DATA)

    if flips < 5:
        assert read(store, tmp_path) == DATA
        assert pauses == list(corrupt_reads.RETRY_PAUSES[:flips])
    else:
        with pytest.raises(Corrupt, match="x has sha256"):
            read(store, tmp_path)
        assert sum(pauses) == 3.0


def test_every_file_of_a_folder_is_read_again(tmp_path: Path, pauses: list[float]) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    for name in ("a", "b"):
        (source / name).write_text(name)
    store = BadLine(3)
    digest = upload_folder(store, "models/x", source)

    fetch_folder(store, "models/x", read_manifest(store, "models/x", digest), target)

    assert {path.name: path.read_text() for path in target.iterdir()} == {"a": "a", "b": "b"}


def test_a_folder_that_is_there_is_known_again_by_a_bad_line(tmp_path: Path, pauses: list[float]) -> None:
    (tmp_path / "a").write_text("a")
    store = BadLine(2)
    digest = upload_folder(store, "models/x", tmp_path)

    assert upload_folder(store, "models/x", tmp_path) == digest
    (tmp_path / "a").write_text("b")
    with pytest.raises(AlreadyExists):
        upload_folder(store, "models/x", tmp_path)


def test_what_is_missing_is_not_waited_for(pauses: list[float]) -> None:
    with pytest.raises(NotFound):
        read_object(BadLine(0), "x", DIGEST)
    assert pauses == []
