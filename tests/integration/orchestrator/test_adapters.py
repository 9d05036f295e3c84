"""LoRA adapters as models: merged into their base as PEFT merges them, or refused by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.integration.orchestrator.test_hub import sources
from tests.integration.orchestrator.world import deployment, run
from tests.servers.hub import running_hub
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedConfig

from quatrain.client.submission import local_files, read_draft
from quatrain.errors import InvalidData
from quatrain.orchestrator.submission.lora import MERGE_FILE, merge_adapter
from quatrain.orchestrator.submission.submit import Submission
from quatrain.storage.folders import upload_model_folder

# What PEFT and the model library warn each other of is not ours.
pytestmark = [pytest.mark.filterwarnings("ignore::FutureWarning"), pytest.mark.filterwarnings("ignore::UserWarning")]
DIGESTS = {"adapter": "a" * 64, "base": "b" * 64}
LLAMA = LlamaConfig(
    vocab_size=32,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    max_position_embeddings=64,
    tie_word_embeddings=False,
)
GPT2 = GPT2Config(vocab_size=32, n_embd=16, n_layer=2, n_head=2, n_positions=64)
CASES: dict[str, tuple[PreTrainedConfig, dict[str, Any], str]] = {
    "plain": (LLAMA, {"target_modules": ["q_proj", "v_proj"]}, "float32"),
    "bfloat16": (LLAMA, {"target_modules": "all-linear"}, "bfloat16"),
    "float16": (LLAMA, {"target_modules": "all-linear"}, "float16"),
    "rank-stabilised": (LLAMA, {"target_modules": ["q_proj"], "use_rslora": True}, "float32"),
    "patterns": (
        LLAMA,
        {
            "target_modules": ["q_proj", "up_proj"],
            "rank_pattern": {"layers.1.self_attn.q_proj": 2},
            "alpha_pattern": {"^model.layers.0.mlp.up_proj": 3, "q_proj": 5},
        },
        "float32",
    ),
    "embedding": (LLAMA, {"target_modules": ["embed_tokens", "k_proj"]}, "float32"),
    "head saved whole": (LLAMA, {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, "float32"),
    "transposed layers": (GPT2, {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}, "float32"),
    "with biases": (GPT2, {"target_modules": ["c_attn"], "bias": "lora_only"}, "float32"),
}


def write_pair(
    root: Path, config: PreTrainedConfig, settings: dict[str, Any], dtype: str = "float32"
) -> tuple[Path, Path, Any]:
    """A random base, an adapter on it as PEFT saves it, and the model that PEFT makes of both."""
    torch.manual_seed(1)
    base: Any = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))  # type: ignore[no-untyped-call]
    base.save_pretrained(root / "base")
    model = peft.get_peft_model(base, peft.LoraConfig(r=4, lora_alpha=7, task_type="CAUSAL_LM", **settings))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name or (parameter.requires_grad and name.endswith("bias")):
                parameter.normal_(std=0.3)
    model.save_pretrained(str(root / "adapter"))
    merged: Any = model
    return root / "adapter", root / "base", merged.merge_and_unload()


@pytest.mark.parametrize("case", CASES)
def test_a_merged_model_is_that_of_peft(case: str, tmp_path: Path) -> None:
    config, settings, dtype = CASES[case]
    adapter, base, expected = write_pair(tmp_path, config, settings, dtype)
    merge_adapter(adapter, base, tmp_path / "merged", digests=DIGESTS)
    before, after = load_file(base / "model.safetensors"), load_file(tmp_path / "merged/model.safetensors")
    wanted = expected.state_dict()
    assert {name for name in after if not torch.equal(after[name], before[name])}
    for name, tensor in after.items():
        full = name if name in wanted else f"transformer.{name}"
        assert tensor.dtype == before[name].dtype
        torch.testing.assert_close(tensor, wanted[full], rtol=1e-6 if dtype == "float32" else 0, atol=1e-6)
    assert json.loads((tmp_path / "merged" / MERGE_FILE).read_text()) == DIGESTS


def edit(adapter: Path, **changed: Any) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))


def change_weights(adapter: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    tensors = load_file(adapter / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, adapter / "adapter_model.safetensors")


FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
REFUSALS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "DoRA": ("use_dora True is not merged", lambda a: edit(a, use_dora=True)),
    "another kind": ("peft_type 'IA3' is not merged", lambda a: edit(a, peft_type="IA3")),
    "PiSSA": ("init_lora_weights 'pissa' changed the base", lambda a: edit(a, init_lora_weights="pissa")),
    "alpha is no number": ("lora_alpha must be a number", lambda a: edit(a, lora_alpha="much")),
    "rank is no number": ("r must be a whole number", lambda a: edit(a, r=0)),
    "half a pair": (
        r"has lora_A, not lora_A and lora_B",
        lambda a: change_weights(a, lambda t: t.pop(f"{FIRST}B.weight")),
    ),
    "no such layer": (
        "which the base does not have",
        lambda a: change_weights(a, lambda t: t.update({"base_model.model.nowhere.bias": torch.ones(2)})),
    ),
    "another width": (
        "the base's are",
        lambda a: change_weights(a, lambda t: t.update({f"{FIRST}A.weight": torch.ones(4, 12)})),
    ),
    "not finite": (
        "is not finite",
        lambda a: change_weights(a, lambda t: t.update({f"{FIRST}A.weight": torch.full((4, 16), np.nan)})),
    ),
    "pickle": (
        "pickle files",
        lambda a: (a / "adapter_model.safetensors").rename(a / "adapter_model.bin"),
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_not_merged_exactly_is_refused_by_name(case: str, tmp_path: Path) -> None:
    words, change = REFUSALS[case]
    adapter, base, _ = write_pair(tmp_path, LLAMA, {"target_modules": ["q_proj"]})
    change(adapter)
    with pytest.raises(InvalidData, match=words):
        merge_adapter(adapter, base, tmp_path / "merged", digests=DIGESTS)


def test_ends_that_the_base_ties_are_not_changed_apart(tmp_path: Path) -> None:
    adapter, base, _ = write_pair(tmp_path, GPT2, {"target_modules": ["wte"]})
    with pytest.raises(InvalidData, match="ties to its other end"):
        merge_adapter(adapter, base, tmp_path / "merged", digests=DIGESTS)


def adapter_of(base: Path, folder: Path, named: str) -> Path:
    """An adapter on the test world's base, which is no real model: one matrix of it gets a change of rank 1."""
    name, weight = next((n, t) for n, t in sorted(load_file(base / "model.safetensors").items()) if t.ndim == 2)
    folder.mkdir()
    config = {"peft_type": "LORA", "base_model_name_or_path": named, "r": 1, "lora_alpha": 2}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    module = f"base_model.model.{name.removesuffix('.weight')}"
    # Of an embedding the two matrices stand the other way round, which one value in all places hides.
    up, down = torch.full((weight.shape[0], 1), 0.5), torch.ones(1, weight.shape[1])
    save_file({f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up}, folder / "adapter_model.safetensors")
    return folder


def test_a_job_on_an_adapter_names_what_it_was_merged_from(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, learners=0, workers=0, schedulers=0) as world:
            config = json.loads((tmp_path / "base/config.json").read_text())
            shutil.copytree(tmp_path / "base", tmp_path / "untied")
            (tmp_path / "untied/config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
            base = upload_model_folder(world.store, tmp_path / "untied")
            adapter = upload_model_folder(world.store, adapter_of(tmp_path / "untied", tmp_path / "ad", "org/base-7b"))
            spec = world.spec() | {"model": {"uri": adapter.uri, "base": base.uri}}
            plan = await world.submitter().submit(Submission(spec, "local"))
            assert plan.pinned.origins == {"model.uri": f"{adapter.uri} on {base.uri}"}
            merged = world.folders("merged").fetch(plan.pinned.model.uri, plan.pinned.model.digest)
            assert json.loads((merged / MERGE_FILE).read_text()) == {"adapter": adapter.digest, "base": base.digest}
            assert plan.spec.model.uri == plan.pinned.model.uri
            assert plan.spec.model.base is None

            spec = world.spec() | {"model": {"uri": adapter.uri}}
            with pytest.raises(
                InvalidData, match=r"model.uri: a LoRA adapter of org/base-7b: give model.base, or merge"
            ):
                await world.submitter().submit(Submission(spec, "local"))
            spec = world.spec() | {"model": {"uri": base.uri, "base": base.uri}}
            with pytest.raises(InvalidData, match=r"whole model and no adapter: leave model.base out"):
                await world.submitter().submit(Submission(spec, "local"))
            with running_hub() as hub:
                commit = hub.put_folder("org/base-7b", tmp_path / "untied")
                tuned = hub.put_folder("org/tuned", tmp_path / "ad")
                spec = world.spec() | {"model": {"uri": "hf://org/tuned"}}
                again = await world.submitter(sources=sources(hub, tmp_path)).submit(Submission(spec, "local"))
            assert again.pinned.model == plan.pinned.model
            assert again.pinned.origins["model.uri"] == f"hf://org/tuned@{tuned} on hf://org/base-7b@{commit}"

    run(scenario)


def test_a_client_sends_the_base_that_an_adapter_names_by_path(tmp_path: Path) -> None:
    write_pair(tmp_path, LLAMA, {"target_modules": ["q_proj"]})
    edit(tmp_path / "adapter", base_model_name_or_path=str(tmp_path / "base"))
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a"}\n')
    spec: dict[str, Any] = {
        "name": "x",
        "model": {"uri": str(tmp_path / "adapter")},
        "reward": {"functions": [{"path": "builtins:len"}]},
        "ppo": {"prompts": str(tmp_path / "prompts.jsonl"), "steps": 1},
    }
    with pytest.raises(InvalidData, match=r"model\.base: .*tokenizer"):
        read_draft(spec, [])  # The base was found: it lacks a tokenizer.
    edit(tmp_path / "adapter", base_model_name_or_path="org/base")
    assert [each.field for each in local_files(read_draft(spec, []))] == ["model.uri", "ppo.prompts"]
