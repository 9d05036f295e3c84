"""Merges a LoRA adapter into its base, W + scale B A, without a tensor library: weights are changed where they lie.

The base's files are copied and each changed tensor is written over its own bytes, so that dtype, shape and place of
every tensor stay the base's, and no more than one tensor is in memory. Sums are made in float32, as PEFT makes them.
"""

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quatrain.errors import InvalidData
from quatrain.storage.files import disk_error
from quatrain.text.adapter_folder import CONFIG_FILE, MERGE, WEIGHTS_FILE, Adapter, read_adapter
from quatrain.text.folder_files import read_json
from quatrain.text.model_folder import check_model_folder, read_tensor_shapes

Matrix = NDArray[np.float32]

MERGE_FILE = "merged_from.json"
"""The file beside a merged model that says what it was made of."""
_DTYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2"), "F64": np.dtype("<f8")}
_PREFIX = "base_model.model."
_LORA = re.compile(r"(?P<module>.+)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B)(?:\.weight)?")
# Families whose linear layers keep their weights as (in, out).
_TRANSPOSED = frozenset({"gpt2", "openai-gpt", "imagegpt", "decision_transformer"})
_HEADS = ("lm_head.weight", "embed_out.weight", "score.weight")
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


@dataclass(frozen=True)
class _Tensor:
    """A tensor in a safetensors file: where its bytes lie."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    def open(self, mode: str) -> "np.memmap[tuple[int, ...], np.dtype[np.generic]]":
        if self.dtype not in _DTYPES:
            raise InvalidData(f"{self.file.name} holds {self.dtype} numbers, into which nothing is merged; {MERGE}")
        return np.memmap(self.file, _DTYPES[self.dtype], mode, self.offset, self.shape)  # type: ignore[call-overload,no-any-return]

    def read(self) -> Matrix:
        raw = np.asarray(self.open("r"))
        if self.dtype == "BF16":
            return (raw.astype(np.uint32) << 16).view(np.float32)
        return raw.astype(np.float32)

    def write(self, value: Matrix, name: str) -> None:
        if not np.isfinite(value).all():
            raise InvalidData(f"the merged {name} is not finite: adapter or base is damaged; {MERGE}")
        target = self.open("r+")
        target[...] = _to_bfloat16(value) if self.dtype == "BF16" else value.astype(target.dtype)
        target.flush()


def merge_adapter(adapter: Path, base: Path, target: Path, *, digests: Mapping[str, str]) -> None:
    """Write the merged model into `target`. `digests`: of adapter and base, kept beside the weights.

    The adapter's own tokenizer and template replace the base's. Raises InvalidData, by name, for an adapter that does
    not fit or that W + scale B A does not merge exactly; Unavailable for a full disk.
    """
    settings = read_adapter(adapter)
    facts = check_model_folder(base)
    read_tensor_shapes(adapter / WEIGHTS_FILE)
    try:
        shutil.copytree(base, target, dirs_exist_ok=True)
        for name in _TOKENIZER:
            if (adapter / name).is_file():
                shutil.copyfile(adapter / name, target / name)
        (target / MERGE_FILE).write_text(json.dumps(dict(digests), indent=2, sort_keys=True) + "\n")
        tensors = {name: each for file in sorted(target.glob("model*.safetensors")) for name, each in _tensors(file)}
        merging = _Merging(
            settings,
            tensors,
            transposed=facts.model_type in _TRANSPOSED,
            tied=_is_tied(base, tensors),
        )
        merging.add(dict(_tensors(adapter / WEIGHTS_FILE)))
    except OSError as error:
        raise disk_error(error, f"the merged model in {target}") from error


@dataclass(frozen=True)
class _Merging:
    """The base's tensors, which an adapter changes."""

    settings: Adapter
    tensors: Mapping[str, _Tensor]
    transposed: bool
    tied: bool

    def add(self, adapter: Mapping[str, _Tensor]) -> None:
        """Change the tensors that the adapter names; each of its own must find its place."""
        modules: dict[str, dict[str, _Tensor]] = {}
        for key, tensor in adapter.items():
            # Of layers that are wrapped the base's own tensors (biases, embeddings) are saved under this word.
            name = key.removeprefix(_PREFIX).replace(".base_layer.", ".")
            match = _LORA.fullmatch(name)
            if match is None:
                self._replace(name, tensor)
            else:
                modules.setdefault(match["module"], {})[match["part"]] = tensor
        for module, parts in modules.items():
            self._add_product(module, parts)

    def _add_product(self, module: str, parts: Mapping[str, _Tensor]) -> None:
        embedding = "lora_embedding_A" in parts or "lora_embedding_B" in parts
        names = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A", "lora_B")
        if set(parts) != set(names):
            raise InvalidData(f"{WEIGHTS_FILE}: {module} has {', '.join(sorted(parts))}, not {' and '.join(names)}")
        down, up = (parts[name].read() for name in names)
        name, weight = self._find(f"{module}.weight")
        if down.ndim != 2 or up.ndim != 2 or down.shape[0] != up.shape[1]:
            raise InvalidData(
                f"{WEIGHTS_FILE}: {module} has matrices {down.shape} and {up.shape}, which are not LoRA's"
            )
        change = (up @ down) * np.float32(self.settings.scale(module, down.shape[0]))
        if embedding or (self.transposed and not name.startswith("lm_head")):
            change = change.T
        if change.shape != weight.shape:
            raise _no_fit(module, change.shape, weight.shape)
        weight.write(weight.read() + change, name)

    def _replace(self, name: str, tensor: _Tensor) -> None:
        """Put a tensor that was trained whole (modules_to_save, bias) in the base's place."""
        found, weight = self._find(name)
        if tensor.shape != weight.shape:
            raise _no_fit(name, tensor.shape, weight.shape)
        weight.write(tensor.read(), found)

    def _find(self, name: str) -> tuple[str, _Tensor]:
        """Return the base's tensor of a name; some families save their body without its first word."""
        module = name.rpartition(".")[0]
        last = module.rpartition(".")[2]
        if self.tied and last in ("lm_head", "embed_tokens", "wte", "embed_in", "embed_out"):
            raise InvalidData(
                f"{WEIGHTS_FILE} changes {module}, which the base ties to its other end, so that they cannot differ: "
                "train it with `tie_word_embeddings: false`, or leave the module out"
            )
        for candidate in (name, name.partition(".")[2]):
            if candidate in self.tensors:
                return candidate, self.tensors[candidate]
        raise InvalidData(f"{WEIGHTS_FILE} changes {name}, which the base does not have: is it the right base?")


def _is_tied(base: Path, names: Iterable[str]) -> bool:
    """Return whether a base's input and output are one tensor; families that do not say so leave the output out."""
    said = read_json(base / "config.json").get("tie_word_embeddings")
    return said if isinstance(said, bool) else not any(name.endswith(_HEADS) for name in names)


def _no_fit(name: str, ours: tuple[int, ...], theirs: tuple[int, ...]) -> InvalidData:
    return InvalidData(
        f"{WEIGHTS_FILE}: {name} is for weights of {ours}, the base's are {theirs}: is it the right base?"
    )


def _tensors(file: Path) -> Iterator[tuple[str, _Tensor]]:
    """Yield the tensors of a sound safetensors file by name."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(length))
    for name, each in header.items():
        if name != "__metadata__":
            yield name, _Tensor(file, each["dtype"], tuple(each["shape"]), 8 + length + each["data_offsets"][0])


def _to_bfloat16(value: Matrix) -> NDArray[np.uint16]:
    """Round to the nearest bfloat16, ties to even."""
    bits = np.ascontiguousarray(value).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def needs_base(adapter: Path) -> InvalidData:
    """Return what to do about an adapter whose base cannot be read here."""
    named = read_adapter(adapter).base or f"a base that {CONFIG_FILE} does not name"
    return InvalidData(f"a LoRA adapter of {named}: give model.base, or {MERGE}")
