"""Pinning models: from a URI of the spec to a folder by content, opened and checked."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from quatrain.errors import (
    Corrupt,
    FieldViolation,
    InvalidData,
    InvalidInput,
    InvalidSpec,
    NotFound,
    QuatrainError,
    Unavailable,
)
from quatrain.orchestrator.submission.hub import address as hub_address
from quatrain.orchestrator.submission.lora import merge_adapter, needs_base
from quatrain.orchestrator.submission.model_names import resolve_name
from quatrain.orchestrator.submission.sources import OUTSIDE, Sources, unreadable
from quatrain.refs import ModelRef
from quatrain.storage import ObjectStore
from quatrain.storage.folders import FolderCache, upload_model_folder
from quatrain.text import Tokenizer
from quatrain.text.adapter_folder import is_adapter, read_adapter
from quatrain.text.finite_weights import check_finite_weights
from quatrain.text.model_folder import ModelFacts, check_model_folder, read_offset


@dataclass(frozen=True)
class PinnedModel:
    """A model that the job depends on, as it was when the job was created."""

    ref: ModelRef
    facts: ModelFacts
    tokenizer: Tokenizer


@dataclass(frozen=True)
class _Imported:
    """A model or adapter in the store, and the exact names of what it came from."""

    ref: ModelRef
    origin: str = ""


@dataclass
class ModelPinner:
    """A pinner of the models of one spec. `local_files`: absolute file:/// URIs are imported (process mode)."""

    store: ObjectStore
    folders: FolderCache
    sources: Sources
    local_files: bool
    origins: dict[str, str] = field(default_factory=dict)
    """By field of the spec, where a model came from: `hf://ORG/NAME@COMMIT`, or adapter and base of a merged one."""
    _imported: dict[str, _Imported] = field(default_factory=dict)

    async def pin(self, uri: str, field: str, base: str | None = None) -> PinnedModel:
        """Resolve, fetch and open a model; an adapter is merged into its base, `base` or the one that it names.

        Raises InvalidSpec or InvalidData naming the field of the spec, Unavailable.
        """
        try:
            return await self.sources.in_thread(uri, lambda name: self._pin(name, field, base))
        except InvalidSpec:
            raise
        except (InvalidInput, NotFound, Corrupt) as error:
            raise _at_field(error, field) from error
        except Unavailable as error:
            raise Unavailable(f"{field}: {error.message}") from error

    def _pin(self, uri: str, field: str, base: str | None) -> PinnedModel:
        found = self._resolve(uri)
        path = self.folders.fetch(found.ref.uri, found.ref.digest)
        if is_adapter(path):
            found = self._merge(found, path, base)
            path = self.folders.fetch(found.ref.uri, found.ref.digest)
        elif base is not None:
            raise InvalidInput(f"{uri} is a whole model and no adapter: leave {field.rpartition('.')[0]}.base out")
        if found.origin:
            self.origins[field] = found.origin
        facts = check_model_folder(path)
        check_finite_weights(path)
        return PinnedModel(found.ref, facts, Tokenizer.load(path))

    def _merge(self, adapter: _Imported, path: Path, given: str | None) -> _Imported:
        named = given or self._named_base(path)
        base = self._resolve(named)
        folder = self.folders.fetch(base.ref.uri, base.ref.digest)
        if is_adapter(folder):
            raise InvalidData(f"the base {named} is an adapter itself: give the model that both were trained from")
        digests = {"adapter": adapter.ref.digest, "base": base.ref.digest}
        with tempfile.TemporaryDirectory(prefix="merged-", dir=self.sources.scratch) as temporary:
            merged = Path(temporary)
            merge_adapter(path, folder, merged, digests=digests)
            ref = upload_model_folder(self.store, merged)
        return _Imported(ref, f"{adapter.origin or adapter.ref.uri} on {base.origin or base.ref.uri}")

    def _named_base(self, adapter: Path) -> str:
        """Return the base that an adapter names, where it can be read here. Raises InvalidData."""
        settings = read_adapter(adapter)
        named = settings.base
        if self.local_files and named.startswith("/") and Path(named).is_dir():
            return f"file://{named}"
        if not hub_address.is_repository(named):
            raise needs_base(adapter)
        uri = f"{hub_address.SCHEME}{named}" + (f"@{settings.revision}" if settings.revision else "")
        try:
            self._resolve(uri)
        except (InvalidInput, NotFound) as error:
            raise InvalidData(f"{needs_base(adapter).message} (from the Hub: {error.message})") from error
        return uri

    def _resolve(self, uri: str) -> _Imported:
        if uri.startswith("sha256:"):
            return _Imported(ModelRef.by_digest(uri.removeprefix("sha256:")))
        if uri.startswith("models://"):
            return _Imported(ModelRef.by_digest(resolve_name(self.store, uri)))
        if uri.startswith("file:///") and self.local_files:
            path = Path(uri.removeprefix("file://"))
            check_model_or_adapter(path)
            return _Imported(upload_model_folder(self.store, path))
        if uri.startswith(OUTSIDE):
            if uri not in self._imported:  # a URI that a spec has twice is one model, whatever happens to the source
                with outside_model(self.sources, uri) as (exact, path):
                    ref = upload_model_folder(self.store, path)
                self._imported[uri] = _Imported(ref, exact if exact.startswith(hub_address.SCHEME) else "")
            return self._imported[uri]
        raise unreadable(uri, "sha256:DIGEST, models://NAME[@N], s3://BUCKET/PREFIX or hf://ORG/NAME")


@contextmanager
def outside_model(sources: Sources, uri: str) -> Iterator[tuple[str, Path]]:
    """Yield a URI with its commit and a checked copy of the model or adapter. Raises as `Sources.model` does."""
    exact = sources.exact(uri, "model")
    with sources.model(exact) as path:
        check_model_or_adapter(path)
        yield exact, path


def check_model_or_adapter(folder: Path) -> None:
    """Raise InvalidData for a folder that is neither a sound model with its tokenizer nor an adapter."""
    if is_adapter(folder):
        read_adapter(folder)
    else:
        check_model_folder(folder)
        Tokenizer.load(folder)


def _at_field(error: QuatrainError, field: str) -> InvalidData:
    return InvalidData(f"{field}: {error.message}", [FieldViolation(field, error.message)])


def offset_of(folders: FolderCache, model: ModelRef, field: str) -> float:
    """Return the centring offset that stands beside a reward model; 0 without one. Raises InvalidData."""
    try:
        return read_offset(folders.fetch(model.uri, model.digest))
    except InvalidData as error:
        raise _at_field(error, field) from error
