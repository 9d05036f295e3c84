"""Pinning models: from a URI of the spec to a folder by content, opened and checked."""

from dataclasses import dataclass
from pathlib import Path

from quatrain.errors import Corrupt, FieldViolation, InvalidData, InvalidInput, InvalidSpec, NotFound, QuatrainError
from quatrain.orchestrator.submission.model_names import resolve_name
from quatrain.orchestrator.submission.sources import SCHEME, Sources, unreadable
from quatrain.refs import ModelRef
from quatrain.storage import ObjectStore
from quatrain.storage.folders import FolderCache, upload_model_folder
from quatrain.text import Tokenizer
from quatrain.text.finite_weights import check_finite_weights
from quatrain.text.model_folder import ModelFacts, check_model_folder, read_offset


@dataclass(frozen=True)
class PinnedModel:
    """A model that the job depends on, as it was when the job was created."""

    ref: ModelRef
    facts: ModelFacts
    tokenizer: Tokenizer


class ModelPinner:
    """A pinner of the models of one spec. `local_files`: absolute file:/// URIs are imported (process mode)."""

    def __init__(self, store: ObjectStore, folders: FolderCache, sources: Sources, *, local_files: bool) -> None:
        self._store = store
        self._folders = folders
        self._sources = sources
        self._local_files = local_files
        self._imported: dict[str, ModelRef] = {}

    async def pin(self, uri: str, field: str) -> PinnedModel:
        """Resolve, fetch and open a model. Raises InvalidSpec or InvalidData naming the field of the spec."""
        try:
            return await self._sources.in_thread(uri, self._pin)
        except InvalidSpec:
            raise
        except (InvalidInput, NotFound, Corrupt) as error:
            raise _at_field(error, field) from error

    def _pin(self, uri: str) -> PinnedModel:
        folder = self._resolve(uri)
        path = self._folders.fetch(folder.uri, folder.digest)
        facts = check_model_folder(path)
        check_finite_weights(path)
        return PinnedModel(folder, facts, Tokenizer.load(path))

    def _resolve(self, uri: str) -> ModelRef:
        if uri.startswith("sha256:"):
            return ModelRef.by_digest(uri.removeprefix("sha256:"))
        if uri.startswith("models://"):
            digest = resolve_name(self._store, uri)
            return ModelRef.by_digest(digest)
        if uri.startswith("file:///") and self._local_files:
            path = Path(uri.removeprefix("file://"))
            check_model_folder(path)
            return self._import(path)
        if uri.startswith(SCHEME):
            if uri not in self._imported:  # a URI that a spec has twice is one model, whatever happens to the bucket
                with self._sources.model(uri) as path:
                    self._imported[uri] = self._import(path)
            return self._imported[uri]
        raise unreadable(uri, "sha256:DIGEST, models://NAME[@N] or s3://BUCKET/PREFIX")

    def _import(self, path: Path) -> ModelRef:
        return upload_model_folder(self._store, path)


def _at_field(error: QuatrainError, field: str) -> InvalidData:
    return InvalidData(f"{field}: {error.message}", [FieldViolation(field, error.message)])


def offset_of(folders: FolderCache, model: ModelRef, field: str) -> float:
    """Return the centring offset that stands beside a reward model; 0 without one. Raises InvalidData."""
    try:
        return read_offset(folders.fetch(model.uri, model.digest))
    except InvalidData as error:
        raise _at_field(error, field) from error
