"""The GPU memory that each service takes: `python -m bench.sizes [MODEL ...]` prints the rows of a table.

By arithmetic from what the services hold, and from what torch keeps for the backward pass, which is counted on tensors
without storage: nothing is computed, and no GPU is asked.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, Qwen2Config

from quatrain.generation.engines.slots import VERSIONS_OF_A_JOB
from quatrain.jobspec.sections import PpoSpec

CONTEXTS = (1024, 4096, 16384)
CHUNK_SIZE = int(PpoSpec.model_fields["chunk_size"].default)
"""How many completions generation makes at once."""
GPUS = (24, 40, 80, 141)
"""GB of memory of common GPUs."""
SHARE = 0.85
"""The share of a GPU's memory to fill; the rest is for what is not counted: allocator, temporaries, driver."""
# Bytes for each parameter in bfloat16. At rest: the weights, their float32 masters, two moments. At work one model at a
# time has float32 gradients, and those of the microbatch in bfloat16.
WEIGHTS, MASTERS, MOMENTS, GRADIENTS, NEW_GRADIENTS = 2, 4, 8, 4, 2


def _shape(width: int, inner: int, layers: int, heads: int) -> Qwen2Config:
    return Qwen2Config(
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )


SHAPES: dict[str, PreTrainedConfig] = {
    "0.5 billion": _shape(896, 4864, 24, 14),
    "1.5 billion": _shape(1536, 8960, 28, 12),
    "3 billion": _shape(2048, 11008, 36, 16),
}
"""The models of Qwen2.5."""


@dataclass(frozen=True)
class Sizes:
    """The bytes that the services of one job take at a context, prompt and completion together."""

    learner: int
    generation: int
    scoring: int
    """Bytes of reward and of reference, each."""


def sizes(model: PreTrainedModel, context: int) -> Sizes:
    """Return the sizes for one job, with microbatches of one row and models of this shape everywhere."""
    count = sum(parameter.numel() for parameter in model.parameters())
    return Sizes(
        learner=learner_bytes(count) + activation_bytes(model, context),
        generation=VERSIONS_OF_A_JOB * WEIGHTS * count + CHUNK_SIZE * context * key_value_bytes(model.config),
        scoring=WEIGHTS * count,
    )


def learner_bytes(parameters: int) -> int:
    """Return the bytes of policy and value model, each of so many parameters, while one of the two is updated."""
    return (2 * (WEIGHTS + MASTERS + MOMENTS) + GRADIENTS + NEW_GRADIENTS) * parameters


def activation_bytes(model: PreTrainedModel, tokens: int) -> int:
    """Return the bytes that the backbone keeps for the backward pass of one row. Heads, run in chunks, keep little."""
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        # The mask is plain causal attention, given in the form for which the tokens are not read.
        output = model.base_model(
            input_ids=torch.zeros(1, tokens, dtype=torch.long), attention_mask={"full_attention": None}, use_cache=False
        )
    del output
    return sum(tensor.untyped_storage().nbytes() for storage, tensor in kept.items() if storage not in weights)


def key_value_bytes(config: PreTrainedConfig) -> int:
    """Return the bytes of keys and values of one token in bfloat16."""
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * 2 * int(config.num_hidden_layers * config.num_key_value_heads * width)


def smallest_gpu(needed: int) -> str:
    """Return the GB of the smallest GPU whose memory is enough, or `none`."""
    return next((str(gpu) for gpu in GPUS if needed <= SHARE * gpu * 1e9), "none")


def rows(name: str, config: PreTrainedConfig) -> list[str]:
    """Return the lines of a model in bfloat16, one for each context."""
    with FakeTensorMode():
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)  # type: ignore[no-untyped-call]
        return [_row(name, context, sizes(model, context)) for context in CONTEXTS]


def _row(name: str, context: int, size: Sizes) -> str:
    cells = [f"{needed / 1e9:.0f} ({smallest_gpu(needed)})" for needed in (size.learner, size.generation, size.scoring)]
    return "| " + " | ".join([name, f"{context:,}", *cells]) + " |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and return 0."""
    parser = argparse.ArgumentParser(prog="python -m bench.sizes", description=__doc__)
    parser.add_argument(
        "models", nargs="*", type=Path, help="model folders, for their config.json; without one, shapes of Qwen2.5"
    )
    options = parser.parse_args(arguments)
    shapes = {path.name: AutoConfig.from_pretrained(path) for path in options.models} or SHAPES
    print("| parameters | context | learner | generation | reward, reference: each |\n|---|---|---|---|---|")
    for name, config in shapes.items():
        print("\n".join(rows(name, config)))
    return 0


if __name__ == "__main__":
    main()
