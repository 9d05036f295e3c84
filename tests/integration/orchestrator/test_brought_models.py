"""Models that people bring, at submission: what their files tell is said there, by field and with a way out."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.integration.orchestrator.world import World, deployment, put_rows, run, write_model
from tests.unit.text.folders import bpe_tokenizer, write_folder, write_json

from quatrain.errors import InvalidInput
from quatrain.orchestrator.submission.submit import Submission
from quatrain.storage.folders import upload_model_folder

CLASSIFIER = "Qwen2ForSequenceClassification"
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PARTS = "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}<|im_end|>{% endfor %}"
Tensors = Mapping[str, np.ndarray]
PLAIN: Tensors = {"weight": np.zeros((2, 2), np.float32)}


def changed(
    world: World,
    *,
    tensors: Tensors = PLAIN,
    config: Mapping[str, Any] | None = None,
    ends: Any = None,
    architecture: str = "Qwen2ForCausalLM",
) -> str:
    """The URI of a model folder with other weights, keys in config.json or end ids."""
    folder = write_model(world.root / f"brought-{len(list(world.root.iterdir()))}", architecture)
    save_file(dict(tensors), folder / "model.safetensors")
    before = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    write_json(folder / "config.json", {**before, **(config or {})})
    if ends is not None:
        write_json(folder / "generation_config.json", {"eos_token_id": ends})
    return f"sha256:{upload_model_folder(world.store, folder).digest}"


def chat_model(world: World, template: str) -> str:
    tokenizer = bpe_tokenizer()
    config = {"model_type": "llama", "vocab_size": tokenizer.get_vocab_size(), "max_position_embeddings": 64}
    folder = world.root / "chat"
    write_folder(folder, tokenizer, {"eos_token": "<|endoftext|>", "chat_template": template}, config)
    save_file(dict(PLAIN), folder / "model.safetensors")
    return f"sha256:{upload_model_folder(world.store, folder).digest}"


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


POLICIES: dict[str, tuple[str, dict[str, Any]]] = {
    "NaN": ("the tensor 'b' holds NaN or infinity", {"tensors": {"a": ones(3), "b": ones(2) * np.nan}}),
    "a state": ("model_type is mamba", {"config": {"model_type": "mamba"}}),
    "a scale of unknown kind": ("lm_head_multiplier is 0.5", {"config": {"lm_head_multiplier": 0.5}}),
    "an embedding of another size": (
        "vocab_size is 6, but the tensor 'model.embed_tokens.weight' has 9 rows",
        {"tensors": {"model.embed_tokens.weight": ones(9, 2)}},
    ),
    "a reward model": ("which writes no text", {"architecture": CLASSIFIER}),
    "an end that the tokenizer lacks": (
        "its end token has the id 7 (eos_token_id of generation_config.json or config.json), which its tokenizer does",
        {"config": {"vocab_size": 8}, "ends": 7},
    ),
}
REWARDS: dict[str, tuple[str, Tensors]] = {
    "no head": ("the weights have no tensor 'score.weight'", PLAIN),
    "a value head": ("it has 'v_head.summary.weight'", {"v_head.summary.weight": ones(1, 2)}),
    "two labels": ("gives 2 labels", {"score.weight": ones(2, 2)}),
    "a bias": ("'score.bias'", {"score.weight": ones(1, 2), "score.bias": ones(1)}),
    "infinity": ("the tensor 'score.weight' holds NaN or infinity", {"score.weight": ones(1, 2) * np.inf}),
}


async def refusal(world: World, spec: dict[str, Any], field: str) -> str:
    with pytest.raises(InvalidInput) as caught:
        await world.submitter().submit(Submission(spec, "local", validate_only=True))
    assert field in [violation.field for violation in caught.value.violations]
    return caught.value.message


async def warnings(world: World, spec: dict[str, Any]) -> tuple[str, ...]:
    plan = await world.submitter().submit(Submission(spec, "local", validate_only=True))
    return plan.document.warnings


def test_policies_that_cannot_run_are_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, learners=0, workers=0, schedulers=0) as world:
            for name, (said, facts) in POLICIES.items():
                spec = {**world.spec(), "model": {"uri": changed(world, **facts)}}
                assert said in await refusal(world, spec, "model.uri"), name

    run(scenario)


def test_reward_models_without_a_head_of_one_score_are_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, learners=0, workers=0, schedulers=0) as world:
            for name, (said, tensors) in REWARDS.items():
                model = changed(world, tensors=tensors, architecture=CLASSIFIER)
                spec = {**world.spec(), "reward": {"model": model}}
                assert said in await refusal(world, spec, "reward.model"), name

    run(scenario)


def test_a_family_without_classifiers_trains_no_reward_model(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, learners=0, workers=0, schedulers=0) as world:
            rows = put_rows(world.store, [{"prompt": "ab", "chosen": "c", "rejected": "d"}] * 4)
            spec = {**world.spec(), "model": {"uri": changed(world, config={"model_type": "olmoe"})}}
            spec["reward"] = {"data": rows}
            assert "family olmoe" in await refusal(world, spec, "reward.data")

    run(scenario)


def test_odd_but_usable_models_are_warned_of(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, learners=0, workers=0, schedulers=0) as world:
            spec = world.spec()
            spec["model"]["uri"] = changed(world, tensors={**PLAIN, "v_head.summary.weight": ones(1, 2)})
            (warning,) = await warnings(world, spec)
            assert "v_head.summary.weight are those of a value head" in warning
            spec["model"]["uri"] = changed(world, config={"vocab_size": 8}, ends=[5, 7])
            (warning,) = await warnings(world, spec)
            assert "no token for the end ids [7]" in warning
            spec["model"]["uri"] = changed(world, config={"vocab_size": 8, "sliding_window": 2})
            assert await warnings(world, spec) == ()

    run(scenario)


def test_the_end_of_a_turn_is_an_end_of_the_job(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, learners=0, workers=0, schedulers=0) as world:
            spec = {**world.spec(), "model": {"uri": chat_model(world, CHATML)}}
            spec["ppo"]["prompts"] = put_rows(
                world.store, [{"prompt": [{"role": "user", "content": f"Hi{'!' * n}"}]} for n in range(4)]
            )
            plan = await world.submitter().submit(Submission(spec, "local", validate_only=True))
            ends = plan.pinned.eos_token_ids
            assert len(ends) == 2
            (warning,) = plan.document.warnings
            assert f"ends an answer with '<|im_end|>' (id {ends[1]})" in warning
            spec["model"]["uri"] = chat_model(world, PARTS)
            assert "leaves out the text of messages" in await refusal(world, spec, "ppo.prompts")

    run(scenario)
