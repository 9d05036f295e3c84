"""Loading Hugging Face folders: safetensors only, no remote code, dropout 0, every weight accounted for."""

from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from quatrain.algorithms.reward_model import head_std
from quatrain.errors import Corrupt, InvalidData
from quatrain.models.device import dtype_of
from quatrain.models.linear import use_fast_linear
from quatrain.models.output_head import mark_absent_ids, output_head
from quatrain.models.sequences import score_head
from quatrain.text import Tokenizer
from quatrain.text.architecture import positions_of


def load_causal_lm(folder: Path, *, dtype: str = "float32", device: torch.device | str = "cpu") -> PreTrainedModel:
    """Return the causal language model in `folder`, in eval mode with dropout 0.

    Ids that the folder's tokenizer does not have are never sampled and count in no distribution. Raises InvalidData
    (not a causal model folder, weights missing or not safetensors, logits that `OutputHead` does not compute) and
    Corrupt (weights that cannot be read).
    """
    model, missing = _load(AutoModelForCausalLM, folder, dtype)
    if missing:
        raise InvalidData(f"{folder.name}: the safetensors files lack {_some(missing)}; export the whole model.")
    model = _placed(model, device)
    _check_head(model, folder)
    if (folder / "tokenizer.json").is_file():
        mark_absent_ids(model, Tokenizer.load(folder).ids())
    return model


def load_sequence_classifier(
    folder: Path, *, dtype: str = "float32", device: torch.device | str = "cpu", new_head_seed: int | None = None
) -> PreTrainedModel:
    """Return the one-label sequence classifier in `folder` (attribute `score`), in eval mode with dropout 0.

    With `new_head_seed` the folder may hold a causal model: its trunk is used and a head without bias is drawn by that
    seed with standard deviation 1 / sqrt(d + 1) (Stiennon et al. 2020), whether or not the folder has one. Raises as
    `load_causal_lm`.
    """
    model, missing = _load(AutoModelForSequenceClassification, folder, dtype, num_labels=1)
    head = score_head(model)
    if new_head_seed is not None:
        missing.discard("score.weight")
        generator = torch.Generator().manual_seed(new_head_seed)
        weight = torch.randn(head.weight.shape, generator=generator) * head_std(head.in_features)
        with torch.no_grad():
            head.weight.copy_(weight)
    if missing:
        raise InvalidData(f"{folder.name}: the safetensors files lack {_some(missing)}; export the whole reward model.")
    model = _placed(model, device)
    return model


def copy_weights(model: PreTrainedModel, folder: Path) -> bool:
    """Copy the weights of `folder` into `model` in place, without building a module.

    Returns False, with the model untouched, if the files do not hold exactly the model's tensors by name and shape; the
    caller then loads the folder again. The caller checks that both have the same config.
    """
    state = model.state_dict(keep_vars=True)
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors.update(_read_safetensors(path))
    missing = {name for name in state if name not in tensors}
    tied = {id(state[name]) for name in tensors if name in state}
    if set(tensors) - set(state) or any(id(state[name]) not in tied for name in missing):
        return False
    if len(tied) != len(tensors):  # two names for one tensor: transformers decides which of them counts
        return False
    if any(state[name].shape != tensor.shape for name, tensor in tensors.items()):
        return False
    with torch.no_grad():
        for name, tensor in tensors.items():
            state[name].copy_(tensor)
    return True


def vocabulary_and_positions(model: PreTrainedModel) -> tuple[int, int]:
    """Return the number of token ids of the model, and the largest length of a sequence (2**31 if it sets no bound)."""
    config = model.config.get_text_config()
    return int(config.vocab_size), positions_of(config.to_dict()) or 1 << 31


def _load(auto_class: Any, folder: Path, dtype: str, **kwargs: Any) -> tuple[PreTrainedModel, set[str]]:
    _check_files(folder)
    hf_logging: Any = transformers.utils.logging
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        model, report = auto_class.from_pretrained(
            folder,
            dtype=dtype_of(dtype),
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            attn_implementation=_attention(folder),
            **kwargs,
        )
    except SafetensorError as error:
        raise Corrupt(f"{folder.name}: the safetensors files cannot be read: {error}.") from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise InvalidData(f"{folder.name} is not a model folder that transformers can load: {first_line}") from error
    if report["mismatched_keys"]:
        raise InvalidData(
            f"{folder.name}: tensor shapes differ from config.json: {_some(set(map(str, report['mismatched_keys'])))}."
        )
    _remove_dropout(model)
    model.train(False)
    return model, set(report["missing_keys"])


def _attention(folder: Path) -> str | None:
    """Return the attention to load with: torch's fast one cannot cap scores, and transformers does not say so."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False).get_text_config()
    return "eager" if getattr(config, "attn_logit_softcapping", None) else None


def _placed(model: PreTrainedModel, device: torch.device | str) -> PreTrainedModel:
    torch.nn.Module.to(model, device)
    use_fast_linear(model)
    return model


def _check_files(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise InvalidData(f"{folder.name} is not a Hugging Face model folder: it has no config.json.")
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
    if pickles:
        raise InvalidData(
            f"{folder.name}: {pickles[0]} is a pickle, which can run code when it is read; "
            "save the model as safetensors (save_pretrained does)."
        )
    raise InvalidData(f"{folder.name} has no *.safetensors file.")


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise Corrupt(f"{path.parent.name}/{path.name} cannot be read as safetensors: {error}.") from error


def _remove_dropout(model: PreTrainedModel) -> None:
    """Set dropout to 0 in the modules, so that train mode samples nothing either; config.json is not changed."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, 0.0)


@torch.no_grad()
def _check_head(model: PreTrainedModel, folder: Path) -> None:
    """Refuse a model that makes its logits in another way than `OutputHead`: logprobs come from head(backbone(ids))."""
    ids = torch.zeros((1, 2), dtype=torch.long, device=model.device)
    head = output_head(model)
    ours = head.logits(model.base_model(input_ids=ids, use_cache=False).last_hidden_state)
    theirs = model(input_ids=ids, use_cache=False).logits.float()
    # transformers scales and caps in the model's dtype, `OutputHead` in float32.
    rtol, atol = (1e-3, 1e-4) if model.dtype == torch.float32 else (2e-2, 2e-2)
    if not torch.allclose(theirs, ours, rtol=rtol, atol=atol, equal_nan=True):
        raise InvalidData(
            f"{folder.name}: {type(model).__name__} changes its logits after the output head in a way that is not "
            "supported; docs/models.md lists the families that are."
        )


def _some(names: set[str]) -> str:
    shown = sorted(names)[:3]
    return ", ".join(shown) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
