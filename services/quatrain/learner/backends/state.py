"""Training state as files: groups of tensors as safetensors, everything else as canonical JSON. No pickle, no time."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from quatrain.digests import canonical_json
from quatrain.errors import Corrupt
from quatrain.json_values import JsonObject, JsonValue
from quatrain.learner.backends.optimizer import ModelOptimizer

_VALUES = "state.json"
_SAME_WIDTH = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

Identity = Mapping[str, str | int]
"""What a checkpoint must have in common with the stage that takes it over: stage, seed, ..."""


@dataclass(frozen=True)
class Part:
    """A model in training and its optimizer."""

    model: torch.nn.Module
    optimizer: ModelOptimizer


def write_state(folder: Path, parts: Mapping[str, Part], values: Mapping[str, JsonValue]) -> None:
    """Write each part as NAME.safetensors and NAME_optimizer.safetensors, the random state, `values` as state.json."""
    for name, part in parts.items():
        _write(folder, name, _model_tensors(part.model))
        _write(folder, f"{name}_optimizer", part.optimizer.state())
    _write(folder, "random", {"torch": torch.get_rng_state()})
    skipped = {name: part.optimizer.skipped_in_a_row for name, part in parts.items()}
    (folder / _VALUES).write_bytes(canonical_json({**values, "skipped_in_a_row": skipped}))


def read_state(folder: Path, parts: Mapping[str, Part], identity: Identity) -> dict[str, Any]:
    """Take over what `write_state` wrote and return its values.

    Raises Corrupt when files cannot be read, do not fit the models, or when a value differs from `identity` (stage,
    seed, ...).
    """
    values: dict[str, Any] = _read_values(folder)
    for name, wanted in identity.items():
        if values.get(name) != wanted:
            raise Corrupt(
                f"The checkpoint was made with {name} {values.get(name)!r}, the stage is opened with {wanted!r}."
            )
    for name, part in parts.items():
        _load_model(part.model, _read(folder, name), name)
        part.optimizer.load(_read(folder, f"{name}_optimizer"))
        part.optimizer.skipped_in_a_row = values["skipped_in_a_row"][name]
    torch.set_rng_state(_read(folder, "random")["torch"])
    return values


@torch.no_grad()
def fingerprint(parts: Mapping[str, Part]) -> int:
    """Return a number of 52 bits that differs where a bit of a weight does, but for an unlikely chance."""
    total = 0
    for part in parts.values():
        for tensor in _model_tensors(part.model).values():
            bits = tensor.contiguous().view(_SAME_WIDTH[tensor.element_size()])
            total = (total * 1_000_003 + int(bits.sum(dtype=torch.int64))) % 2**52
    return total


def _write(folder: Path, group: str, tensors: Mapping[str, Tensor]) -> None:
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(plain, folder / f"{group}.safetensors")


def _read(folder: Path, group: str) -> dict[str, Tensor]:
    try:
        return load_file(folder / f"{group}.safetensors")
    except (OSError, SafetensorError) as error:
        raise Corrupt(f"The checkpoint's {group}.safetensors cannot be read: {error}") from error


def _read_values(folder: Path) -> JsonObject:
    try:
        values = json.loads((folder / _VALUES).read_bytes())
    except (OSError, ValueError) as error:
        raise Corrupt(f"The checkpoint's {_VALUES} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise Corrupt(f"The checkpoint's {_VALUES} is no JSON object.")
    return values


def _model_tensors(model: torch.nn.Module) -> dict[str, Tensor]:
    """Return parameters (a tied one once) and persistent buffers by name."""
    persistent = model.state_dict().keys()
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in persistent}
    return {**dict(model.named_parameters()), **buffers}


@torch.no_grad()
def _load_model(model: torch.nn.Module, tensors: Mapping[str, Tensor], group: str) -> None:
    targets = _model_tensors(model)
    if targets.keys() != tensors.keys():
        different = sorted(targets.keys() ^ tensors.keys())[0]
        raise Corrupt(f"The checkpoint's {group} does not fit the model: {different} is in only one of them.")
    for name, target in targets.items():
        if target.shape != tensors[name].shape:
            raise Corrupt(f"The checkpoint's {group} does not fit the model: {name} has another shape.")
        target.copy_(tensors[name])
