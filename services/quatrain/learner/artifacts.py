"""Everything that the learner reads from and writes to the object store. Blocking: called from worker threads only.

Names under jobs/ contain the attempt, so no other learner writes them; they mean nothing until an event names them.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from quatrain.digests import sha256_hex
from quatrain.errors import Corrupt, InvalidInput
from quatrain.json_values import object_at
from quatrain.learner.backends import Inputs
from quatrain.learner.requests import ExportedModel, OpenRequest
from quatrain.refs import ModelRef, ObjectRef
from quatrain.storage import ObjectStore
from quatrain.storage.folders import FolderCache, read_object, upload_folder, upload_model_folder
from quatrain.text import Tokenizer
from quatrain.text.folder_files import read_json

_MANIFEST = "manifest.json"
_SUMS = "SHA256SUMS"

# Copied from the tokenizer folder into exports, where they exist.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
)


class Artifacts:
    """The learner's inputs, versions, checkpoints and exports in the store; `scratch` holds files meanwhile."""

    def __init__(self, store: ObjectStore, cache: FolderCache, scratch: Path) -> None:
        self._store = store
        self._cache = cache
        self._scratch = scratch
        self._padded: dict[str, bool] = {}
        """By digest of a tokenizer, whether the embedding of its policy is padded."""
        scratch.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Make an empty folder that is removed afterwards."""
        with tempfile.TemporaryDirectory(dir=self._scratch) as path:
            yield Path(path)

    def fetch(self, request: OpenRequest) -> Inputs:
        """Return local, verified copies of what the request names, and fetch its checkpoint.

        Raises NotFound, Corrupt, Unavailable.
        """
        if request.checkpoint is not None:
            self.checkpoint_folder(request.checkpoint)
        return Inputs(
            model=self._cache.fetch(request.model.uri, request.model.digest),
            value_model=self._optional(request.value_model),
            tokenizer=self._optional(request.tokenizer),
            data=None if request.data is None else self.read(request.data),
            held_out=None if request.held_out is None else self.read(request.held_out),
        )

    def checkpoint_folder(self, checkpoint: ObjectRef) -> Path:
        """Return a local, verified copy of a checkpoint that `save` wrote."""
        prefix, _, name = checkpoint.key.rpartition("/")
        if name != _MANIFEST:
            raise InvalidInput(f"A checkpoint is named by its {_MANIFEST}, not by {checkpoint.key}.")
        return self._cache.fetch(f"store:{prefix}", checkpoint.sha256)

    def read(self, source: ObjectRef) -> bytes:
        """Return the verified bytes of an object."""
        return read_object(self._store, source.key, source.sha256)

    def write_tokens(self, request: OpenRequest, step: int, data: bytes) -> ObjectRef:
        """Store the per-token results of a step. Raises Corrupt if this attempt has stored others for it."""
        key = f"jobs/{request.token.job}/{request.stage}/tokens/{step}-{request.token.attempt}.parquet"
        if not self._store.put_if_absent(key, data) and self._store.get(key) != data:
            raise Corrupt(f"{key} holds other bytes: this attempt has already trained step {step} to another result.")
        return ObjectRef(key, sha256_hex(data), len(data))

    def publish(self, request: OpenRequest, step: int, folder: Path) -> ModelRef:
        """Store the current weights.

        A reward model gets its tokenizer, so that it can score text, and a policy whose embedding has ids that no token
        stands for, so that none of them is sampled.
        """
        if request.stage.makes_reward_model or self._is_padded(request, folder):
            self._copy_tokenizer(request, folder)
        prefix = f"jobs/{request.token.job}/{request.stage}/policy/{step}-{request.token.attempt}"
        digest = upload_folder(self._store, prefix, folder)
        return ModelRef(f"store:{prefix}", digest, step if request.stage.uses_rollouts else None)

    def save(self, request: OpenRequest, step: int, folder: Path) -> ObjectRef:
        """Store a checkpoint and return its manifest."""
        prefix = f"jobs/{request.token.job}/{request.stage}/checkpoints/{step}-{request.token.attempt}"
        digest = upload_folder(self._store, prefix, folder)
        key = f"{prefix}/{_MANIFEST}"
        found = self._store.stat(key)
        return ObjectRef(key, digest, 0 if found is None else found.size)

    def export(self, request: OpenRequest, folder: Path, extra_files: Mapping[str, bytes]) -> ExportedModel:
        """Complete a model folder with tokenizer, extra files and SHA256SUMS and store it under models/DIGEST."""
        _name_turn_end(folder, self._copy_tokenizer(request, folder))
        _add_extra_files(folder, extra_files)
        _write_sums(folder)
        return ExportedModel(upload_model_folder(self._store, folder), weights_sha256(folder))

    def _optional(self, ref: ModelRef | None) -> Path | None:
        return None if ref is None else self._cache.fetch(ref.uri, ref.digest)

    def _is_padded(self, request: OpenRequest, folder: Path) -> bool:
        """Return whether the embedding has more ids than the tokenizer, which a job finds out once."""
        source = request.tokenizer or request.model
        if source.digest not in self._padded:
            path = self._cache.fetch(source.uri, source.digest)
            known = Tokenizer.load(path).ids() if (path / "tokenizer.json").is_file() else None
            self._padded[source.digest] = known is not None and not known.issuperset(range(_vocabulary(folder)))
        return self._padded[source.digest]

    def _copy_tokenizer(self, request: OpenRequest, folder: Path) -> Path:
        """Copy the tokenizer's files and return the folder that they come from."""
        source = request.tokenizer or request.model
        path = self._cache.fetch(source.uri, source.digest)
        for name in TOKENIZER_FILES:
            if (path / name).is_file():
                shutil.copyfile(path / name, folder / name)
        return path


def _vocabulary(folder: Path) -> int:
    """Return the rows of a model's embedding by its config; 0 where it names none."""
    config = read_json(folder / "config.json")
    rows = object_at(config, "text_config").get("vocab_size", config.get("vocab_size"))
    return rows if isinstance(rows, int) else 0


def _name_turn_end(folder: Path, source: Path) -> None:
    """Let other programs stop where the model was trained to: at the end of a turn that no file named as an end."""
    if not (source / "tokenizer.json").is_file():
        return
    tokenizer = Tokenizer.load(source)
    if tokenizer.turn_end is not None:
        named = {**read_json(folder / "generation_config.json"), "eos_token_id": list(tokenizer.eos_token_ids)}
        (folder / "generation_config.json").write_text(json.dumps(named, indent=2), encoding="utf-8")


def weights_sha256(folder: Path) -> str:
    """Return the sha256 over the contents of the weight files (*.safetensors) in name order."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def _add_extra_files(folder: Path, extra_files: Mapping[str, bytes]) -> None:
    for name, content in extra_files.items():
        if name in (_MANIFEST, _SUMS) or Path(name).name != name or (folder / name).exists():
            raise InvalidInput(
                f"An export cannot take the extra file {name!r}: not a plain name, or taken by the model."
            )
        (folder / name).write_bytes(content)


def _write_sums(folder: Path) -> None:
    lines = []
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}\n")
    (folder / _SUMS).write_text("".join(lines), encoding="utf-8")
