from pathlib import Path

import torch
from bench.cases import CASES, HIDDEN, INTERMEDIATE, LAYERS, MAX_POSITIONS
from bench.flops import BACKBONE_WEIGHTS, Row, forward_flops, step_flops
from bench.models import write_policy
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from quatrain.text import Tokenizer


def test_weights_of_the_backbone_are_those_of_its_linear_layers(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(write_policy(tmp_path, CASES["uniform"]))

    linear = [layer.weight.numel() for layer in model.base_model.modules() if isinstance(layer, torch.nn.Linear)]

    assert sum(linear) == BACKBONE_WEIGHTS
    assert (model.config.hidden_size, model.config.intermediate_size) == (HIDDEN, INTERMEDIATE)
    assert (model.config.num_hidden_layers, model.config.max_position_embeddings) == (LAYERS, MAX_POSITIONS)


def test_the_formula_counts_what_torch_counts_but_half_of_the_attention(tmp_path: Path) -> None:
    case, tokens = CASES["ragged"], 48
    model = AutoModelForCausalLM.from_pretrained(write_policy(tmp_path, case), attn_implementation="eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=torch.zeros((1, tokens), dtype=torch.long))

    # Eager attention computes all tokens x tokens products, of which a causal mask needs half.
    masked = 2 * LAYERS * HIDDEN * tokens * tokens
    assert counter.get_total_flops() - masked == forward_flops(Row(0, tokens), HIDDEN * case.vocabulary)


def test_a_step_is_one_forward_pass_and_four_epochs_of_training_for_two_models() -> None:
    row = Row(prompt=32, completion=64)
    policy, value = forward_flops(row, HIDDEN * 512), forward_flops(row, HIDDEN)

    assert step_flops([row, row], 512, 4) == 2 * 13 * (policy + value)


def test_the_case_s_text_gives_its_ids_back(tmp_path: Path) -> None:
    case = CASES["uniform"]
    tokenizer = Tokenizer.load(write_policy(tmp_path, case))
    prompts = case.prompts(3)

    assert [tokenizer.encode_prompt(case.text(prompt)) for prompt in prompts] == prompts
    assert tokenizer.eos_token_ids == (case.eos_id,)
    assert all(len(prompt) == case.longest and max(prompt) < case.pad_id for prompt in prompts)
