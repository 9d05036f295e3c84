"""Checks a LoRA adapter's folder, as PEFT saves it: adapter_config.json beside adapter_model.safetensors."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from quatrain.errors import InvalidData
from quatrain.json_values import JsonObject, object_at
from quatrain.text.folder_files import read_json
from quatrain.text.model_folder import no_weights

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
# Others begin by taking a part out of the base's own weights, so that W + BA is not what was trained.
_PLAIN_INITS = (None, True, False, "gaussian", "eva", "orthogonal")
_REFUSED = (
    "use_dora",
    "lora_bias",
    "use_qalora",
    "layer_replication",
    "trainable_token_indices",
    "target_parameters",
    "alora_invocation_tokens",
    "arrow_config",
    "use_bdlora",
    "velora_config",
    "monteclora_config",
    "kasa_config",
)
MERGE = "merge it yourself with PEFT (`merge_and_unload`, then `save_pretrained`) and give that folder"


@dataclass(frozen=True)
class Adapter:
    """What adapter_config.json says of how a LoRA adapter joins its base."""

    base: str
    """The base as its author named it: a name of the Hub or a path; empty when not said."""
    revision: str
    """The revision of the base on the Hub; empty when not said."""
    rank: int
    alpha: float
    alpha_pattern: Mapping[str, float]
    rank_stabilized: bool

    def scale(self, module: str, rank: int) -> float:
        """Return the factor of B A at a module, whose matrices have this rank."""
        found = [alpha for pattern, alpha in self.alpha_pattern.items() if _means(pattern, module)]
        alpha = found[0] if found else self.alpha
        return alpha / (math.sqrt(rank) if self.rank_stabilized else rank)


def is_adapter(folder: Path) -> bool:
    """Return whether a folder holds an adapter and no model of its own."""
    return (folder / CONFIG_FILE).is_file() and not (folder / "config.json").is_file()


def read_adapter(folder: Path) -> Adapter:
    """Return what an adapter's configuration says. Raises InvalidData for what cannot be merged exactly, by name."""
    file = folder / CONFIG_FILE
    config = read_json(file)
    kind = config.get("peft_type")
    if kind != "LORA":
        raise InvalidData(f"{file}: peft_type {kind!r} is not merged here, only LORA; {MERGE}")
    for name in _REFUSED:
        if config.get(name):
            raise InvalidData(f"{file}: {name} {config[name]!r:.80} is not merged here; {MERGE}")
    init = config.get("init_lora_weights")
    if init not in _PLAIN_INITS:
        raise InvalidData(f"{file}: init_lora_weights {init!r:.80} changed the base's own weights; {MERGE}")
    if not (folder / WEIGHTS_FILE).is_file():
        raise no_weights(folder, [path.name for path in folder.iterdir()])
    base = config.get("base_model_name_or_path")
    rank, alpha = config.get("r"), _number(file, config, "lora_alpha", 8.0)
    if type(rank) is not int or rank < 1:
        raise InvalidData(f"{file}: r must be a whole number from 1, not {rank!r:.80}")
    revision = config.get("revision")
    patterns = object_at(config, "alpha_pattern")
    return Adapter(
        base=base if isinstance(base, str) else "",
        revision=revision if isinstance(revision, str) else "",
        rank=rank,
        alpha=alpha,
        alpha_pattern={name: _number(file, patterns, name, alpha) for name in patterns},
        rank_stabilized=config.get("use_rslora") is True,
    )


def _means(pattern: str, module: str) -> bool:
    """Return whether a key of a pattern means a module: as its last words, or as an expression from its first."""
    expression = pattern if pattern.startswith("^") else rf"(?:.*\.)?(?:{pattern})$"
    try:
        return re.match(expression, module) is not None
    except re.error:
        return False


def _number(file: Path, config: JsonObject, name: str, default: float) -> float:
    value = config.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidData(f"{file}: {name} must be a number, not {value!r:.80}")
    return float(value)
