"""From configuration to a store, and the probe on stores that break their promises."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from quatrain.config import StorageConfig
from quatrain.errors import InvalidInput
from quatrain.storage import ObjectStat, open_store, probe_store
from quatrain.storage.local import LocalStore
from quatrain.storage.memory import MemoryStore


class FakeStoreThatIgnoresConditions(MemoryStore):
    def put_if_absent(self, key: str, data: bytes) -> bool:
        self.put(key, data)
        return True


class FakeStoreThatIgnoresRepeats(MemoryStore):
    """Takes the same bytes twice, as a store that compares instead of creating."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        return super().put_if_absent(key, data) or self.get(key) == data


class FakeStoreWithAStaleList(MemoryStore):
    def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> list[ObjectStat]:
        return super().list(prefix, start_after=start_after, limit=limit)[:-1]


class FakeStoreThatIgnoresStartAfter(MemoryStore):
    def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> list[ObjectStat]:
        return super().list(prefix, limit=limit)


class FakeStoreWithStaleReads(MemoryStore):
    def put(self, key: str, data: bytes) -> None:
        if self.stat(key) is None:
            super().put(key, data)


def test_kinds(tmp_path: Path) -> None:
    assert isinstance(open_store(StorageConfig(kind="memory")), MemoryStore)
    local = open_store(StorageConfig(kind="local", root=tmp_path / "x"))
    assert isinstance(local, LocalStore)
    assert str(tmp_path / "x") in local.name


@pytest.mark.parametrize(
    "config",
    [
        StorageConfig(kind="local"),
        StorageConfig(kind="s3"),
        StorageConfig(kind="s3", endpoint="x", bucket=""),
        StorageConfig(kind="s3", bucket=""),
    ],
)
def test_settings_that_do_not_fit(config: StorageConfig) -> None:
    with pytest.raises(InvalidInput, match=r"storage\.kind"):
        open_store(config)


def test_the_configuration_knows_the_kinds() -> None:
    with pytest.raises(ValidationError, match=r"kind\n  Input should be 'local', 's3' or 'memory'"):
        StorageConfig.model_validate({"kind": "ftp"})


@pytest.mark.parametrize(
    ("store", "promise"),
    [
        (FakeStoreThatIgnoresConditions(), "If-None-Match"),
        (FakeStoreThatIgnoresRepeats(), "If-None-Match"),
        (FakeStoreWithAStaleList(), "LIST"),
        (FakeStoreThatIgnoresStartAfter(), "start-after"),
        (FakeStoreWithStaleReads(), "GET"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_probe_refuses_by_name(store: MemoryStore, promise: str) -> None:
    with pytest.raises(InvalidInput, match=promise) as refused:
        probe_store(store)
    assert refused.value.code_reason == "STORE_UNFIT"
    assert store.name in refused.value.message
