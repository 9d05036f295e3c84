"""The sizes of docs/deploy.md are those of real tensors."""

from pathlib import Path

import pytest
import torch
from bench.sizes import (
    MASTERS,
    MOMENTS,
    SHAPES,
    WEIGHTS,
    activation_bytes,
    key_value_bytes,
    learner_bytes,
    main,
    rows,
    sizes,
    smallest_gpu,
)
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen2Config
from transformers.cache_utils import DynamicCache

from quatrain.learner.backends.optimizer import AdamSettings, ModelOptimizer

ROOT = Path(__file__).parents[3]
CONFIG = Qwen2Config(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    tie_word_embeddings=True,
)


def made() -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_config(CONFIG, dtype=torch.bfloat16)  # type: ignore[no-untyped-call]
    return model


def bytes_of(tensors: "list[torch.Tensor]") -> int:
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


def test_a_learner_holds_what_the_arithmetic_says() -> None:
    model = made()
    count = sum(parameter.numel() for parameter in model.parameters())
    optimizer = ModelOptimizer("policy", model, AdamSettings())
    model(input_ids=torch.zeros(1, 8, dtype=torch.long)).logits.float().sum().backward()
    new = bytes_of([parameter.grad for parameter in model.parameters() if parameter.grad is not None])
    optimizer.accumulate()
    gradients = bytes_of(optimizer._gradients())
    assert optimizer.update(1e-3, finite=True) is not None
    state = [tensor for key, tensor in optimizer.state().items() if not key.endswith(":step")]
    at_rest = bytes_of([*model.parameters(), *state])
    assert at_rest == (WEIGHTS + MASTERS + MOMENTS) * count
    assert 2 * at_rest + gradients + new == learner_bytes(count)


@pytest.mark.parametrize("tokens", [16, 64])
def test_activations_are_those_of_a_real_pass(tokens: int) -> None:
    with FakeTensorMode():
        counted = activation_bytes(made(), tokens)
    assert counted == activation_bytes(made(), tokens)


def test_keys_and_values_are_those_of_a_real_pass() -> None:
    cache = DynamicCache(config=CONFIG)
    made()(input_ids=torch.zeros(1, 8, dtype=torch.long), past_key_values=cache, use_cache=True)
    held = [tensor for layer in cache.layers for tensor in vars(layer).values() if isinstance(tensor, torch.Tensor)]
    assert bytes_of(held) == 8 * key_value_bytes(CONFIG)


def test_more_context_takes_more_where_it_is_held() -> None:
    model = made()
    short, long = sizes(model, 16), sizes(model, 32)
    assert long.learner > short.learner
    assert long.generation > short.generation
    assert long.scoring == short.scoring


def test_the_smallest_gpu_leaves_a_share_free() -> None:
    assert smallest_gpu(20 * 10**9) == "24"
    assert smallest_gpu(21 * 10**9) == "40"
    assert smallest_gpu(130 * 10**9) == "none"


def test_the_page_shows_what_is_printed() -> None:
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    for name, config in SHAPES.items():
        for row in rows(name, config):
            assert row in page


def test_the_table_of_a_model_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    CONFIG.save_pretrained(tmp_path / "mine")
    assert main([str(tmp_path / "mine")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert lines[2].startswith("| mine | 1,024 | 0 (24) |")
