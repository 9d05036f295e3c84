"""Checks a Hugging Face model folder before anything loads it: no torch, no code from the folder, no pickle."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from safetensors import SafetensorError, safe_open

from quatrain.digests import parse_json
from quatrain.errors import InvalidData
from quatrain.text.architecture import check_architecture, positions_of, whole_number
from quatrain.text.folder_files import read_json
from quatrain.text.tensors import Shape, embedding_problem

_PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
# Weights that nothing here opens; a folder that has safetensors does not need them.
_OTHER_WEIGHTS = _PICKLES | {".h5", ".msgpack", ".onnx", ".gguf"}
OFFSET_FILE = "quatrain.json"
"""The file beside a reward model that holds what is subtracted from its scores."""


@dataclass(frozen=True)
class ModelFacts:
    """The facts that config.json and the weight files state about a model.

    vocab_size: rows of the embedding; max_positions: longest input in tokens, None when the architecture has no bound;
    parameters: numbers in all weight files; shapes: of every tensor by name.
    """

    vocab_size: int
    max_positions: int | None
    model_type: str
    architectures: tuple[str, ...]
    parameters: int
    shapes: Mapping[str, Shape] = field(default_factory=dict, repr=False)


def check_model_folder(folder: Path) -> ModelFacts:
    """Check a model folder and return what its files say.

    Raises InvalidData naming the file and what is wrong: missing or broken config, weights that are pickles, absent,
    corrupt or not all there, code that the folder wants to run, or an architecture that is not supported.
    """
    if not folder.is_dir():
        raise InvalidData(f"The model folder {folder} does not exist.")
    config = read_json(folder / "config.json")
    if not config:
        raise InvalidData(f"The folder {folder} has no config.json, so it is not a Hugging Face model.")
    for name in ("config.json", "tokenizer_config.json"):
        if read_json(folder / name).get("auto_map"):
            raise InvalidData(
                f"{folder / name} asks for remote code (auto_map), which is never run. Use an architecture that "
                "transformers has built in and remove auto_map."
            )
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise InvalidData(f"{folder / 'config.json'} names no model_type.")
    check_architecture(config)
    shapes = _read_weights(folder)
    architectures = config.get("architectures") or []
    if not isinstance(architectures, list):
        raise InvalidData(f"{folder / 'config.json'}: architectures must be a list, not {architectures!r:.80}.")
    vocab_size = whole_number(config, ("vocab_size",)) or _refuse_vocab(folder)
    problem = embedding_problem(shapes, vocab_size)
    if problem is not None:
        raise InvalidData(problem)
    return ModelFacts(
        vocab_size=vocab_size,
        max_positions=positions_of(config),
        model_type=model_type,
        architectures=tuple(str(name) for name in architectures),
        parameters=sum(map(math.prod, shapes.values())),
        shapes=shapes,
    )


def _read_weights(folder: Path) -> dict[str, Shape]:
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        shapes = read_tensor_shapes(folder / "model.safetensors")
    elif index.is_file():
        shapes = _read_shards(folder, index)
    else:
        raise no_weights(folder, [path.name for path in folder.iterdir()])
    if not shapes:
        raise InvalidData(f"The weights in {folder} hold no tensor.")
    return shapes


def read_tensor_shapes(file: Path) -> dict[str, Shape]:
    """Return the shape of each tensor by name. Only the header is read, and checked against the size of the file."""
    try:
        with safe_open(file, framework="numpy") as tensors:
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise InvalidData(
            f"{file} is not a sound safetensors file: {error}. It may be cut short; save or copy the model again."
        ) from None


def _read_shards(folder: Path, index: Path) -> dict[str, Shape]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InvalidData(f"{index} has no weight_map.")
    shards: dict[str, dict[str, Shape]] = {}
    shapes: dict[str, Shape] = {}
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise InvalidData(f"{index}: {shard!r} is not the name of a safetensors file in the folder.")
        if shard not in shards:
            if not (folder / shard).is_file():
                raise InvalidData(f"{index} names {shard}, which is not in the folder.")
            shards[shard] = read_tensor_shapes(folder / shard)
        if name not in shards[shard]:
            raise InvalidData(f"{folder / shard} lacks the tensor {name!r} that {index.name} places there.")
        shapes[name] = shards[shard][name]
    return shapes


def read_offset(folder: Path) -> float:
    """Return the centring offset from the file beside a reward model; 0 without one. Raises InvalidData."""
    file = folder / OFFSET_FILE
    if not file.is_file():
        return 0.0
    try:
        offset = parse_json(file.read_bytes()).get("offset", 0.0)
        if not math.isfinite(offset):
            raise ValueError(f"offset {offset} is not a finite number")
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise InvalidData(f"{OFFSET_FILE} of the reward model cannot be read: {error}") from error
    return float(offset)


def is_model_file(name: str) -> bool:
    """Return whether a file, by its slash path, is kept with the model: not hidden, no other kind of weights."""
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") for part in path.parts)
    return not hidden and path.suffix not in _OTHER_WEIGHTS and name != "manifest.json"


def no_weights(folder: Path | str, names: Iterable[str]) -> InvalidData:
    """Return what is wrong with a folder that has files of these names and no safetensors."""
    pickles = sorted(name for name in names if PurePosixPath(name).suffix in _PICKLES)
    if pickles:
        return InvalidData(
            f"The weights in {folder} are pickle files ({', '.join(pickles[:5])}), which can run code when they are "
            "opened and are never read. Save the model as safetensors (save_pretrained does)."
        )
    return InvalidData(f"The folder {folder} has no weights: model.safetensors, or shards with an index, are needed.")


def _refuse_vocab(folder: Path) -> int:
    raise InvalidData(f"{folder / 'config.json'} names no vocab_size.")
