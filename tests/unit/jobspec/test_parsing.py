"""Defaults, bounds, wrong keys and cross-field rules of the job spec."""

import copy
from typing import Any

import pytest

from quatrain.errors import InvalidSpec
from quatrain.jobspec import apply_overrides, load_yaml, parse_spec, resolved_document

MINIMAL = """
name: courteous-replies
seed: 1
deterministic: true
model: {uri: file://base-model}
sft: {data: sft.jsonl, epochs: 2, learning_rate: 1.0e-3}
reward: {data: preferences.jsonl, learning_rate: 1.0e-3}
ppo: {prompts: prompts.jsonl, eval_prompts: held_out.jsonl, steps: 60, generation: {max_new_tokens: 48},
      optimizer: {policy_lr: 3.0e-5, value_lr: 1.0e-4}}
"""
FUNCTIONS = {
    "name": "f",
    "model": {"uri": "m"},
    "reward": {"functions": [{"path": "score.py:count"}]},
    "ppo": {"prompts": "p.jsonl", "steps": 1},
}


def violations(*overrides: str, document: dict[str, Any] | None = None) -> dict[str, str]:
    base = load_yaml(MINIMAL) if document is None else copy.deepcopy(document)
    with pytest.raises(InvalidSpec) as caught:
        parse_spec(apply_overrides(base, overrides))
    found = {item.field: item.description for item in caught.value.violations}
    assert all(field in caught.value.message for field in found)
    return found


def test_defaults_are_those_of_the_interface() -> None:
    spec = parse_spec(load_yaml(MINIMAL))

    assert spec.sft is not None
    assert (spec.sft.batch_size, spec.sft.warmup_ratio, spec.sft.schedule) == (32, 0.03, "cosine")
    assert (spec.sft.max_length, spec.sft.weight_decay, spec.sft.grad_clip, spec.sft.microbatch_tokens) == (
        1024,
        0.0,
        1.0,
        1024,
    )
    reward = spec.reward
    assert (reward.epochs, reward.batch_size, reward.held_out_share, reward.min_accuracy) == (1, 32, 0.05, 0.55)
    assert (reward.center, reward.scale, reward.clip, reward.timeout) == (True, 1.0, None, 60.0)
    ppo = spec.ppo
    assert (ppo.eval_every, ppo.prompts_per_step, ppo.samples_per_prompt, ppo.chunk_size) == (20, 64, 1, 16)
    assert (ppo.staleness, ppo.max_prompt_length, ppo.truncate_prompt) == (0, 512, "refuse")
    assert ppo.generation.model_dump() == {
        "max_new_tokens": 48,
        "temperature": 1.0,
        "ignore_eos": False,
        "missing_eos_penalty": 1.0,
    }
    assert (ppo.kl.coef, ppo.kl.placement, ppo.kl.estimator, ppo.kl.controller) == (0.05, "reward", "k1", "fixed")
    assert (ppo.kl.target, ppo.kl.horizon) == (None, 10000.0)
    assert ppo.advantage.model_dump() == {"estimator": "gae", "gamma": 1.0, "lam": 0.95, "whiten": True}
    assert (ppo.optimizer.schedule, ppo.optimizer.betas, ppo.optimizer.eps) == ("linear", (0.9, 0.999), 1e-5)
    assert (ppo.optimizer.epochs, ppo.optimizer.minibatches, ppo.optimizer.target_kl) == (4, 1, None)
    assert ppo.clip.model_dump() == {"low": 0.2, "high": 0.2, "value": 0.2, "dual": None}
    assert (ppo.entropy_coef, ppo.importance_cap, ppo.max_refused_share, ppo.max_skipped_updates) == (0.0, 2.0, 0.1, 5)
    assert (spec.checkpoint.every_steps, spec.checkpoint.keep_last, spec.limits.retries) == (20, 3, 5)
    assert (spec.pool, spec.priority, spec.model.dtype) == ("default", 0, None)
    assert parse_spec(FUNCTIONS | {"seed": 3}).seed == 3
    assert parse_spec(FUNCTIONS).seed == 1


def test_data_is_a_uri_or_a_mapping() -> None:
    document = apply_overrides(load_yaml(MINIMAL), ["sft.data.columns={prompt: question}", "sft.data.format=json"])

    spec = parse_spec(document)

    assert spec.sft is not None
    assert (spec.sft.data.uri, spec.sft.data.columns, spec.sft.data.format) == (
        "sft.jsonl",
        {"prompt": "question"},
        "json",
    )
    assert spec.ppo.prompts.uri == "prompts.jsonl"


@pytest.mark.parametrize(
    ("override", "field", "words"),
    [
        ("ppo.kl.coeff=1", "ppo.kl.coeff", ["unknown key", "did you mean 'ppo.kl.coef'"]),
        ("ppo.gamma=1", "ppo.gamma", ["did you mean 'ppo.advantage.gamma'"]),
        ("wibble=3", "wibble", ["unknown key", "allowed here: name, seed"]),
        ("sft.data.colums={}", "sft.data.colums", ["did you mean 'sft.data.columns'"]),
        ("ppo.steps=x", "ppo.steps", ['"x" is not a whole number']),
        ('ppo.steps="60"', "ppo.steps", ["remove the quotes"]),
        ("ppo.steps=60.0", "ppo.steps", ["60.0 is not a whole number"]),
        ("ppo.steps=true", "ppo.steps", ["true is not a whole number"]),
        ("ppo.steps=0", "ppo.steps", ["0 is out of bounds", "at least 1"]),
        ("ppo.steps=3000000000", "ppo.steps", ["out of bounds", "at most 2147483647"]),
        ("ppo.clip.low=1", "ppo.clip.low", ["must be below 1"]),
        ("ppo.kl.coef=-0.1", "ppo.kl.coef", ["-0.1", "at least 0"]),
        ("ppo.kl.coef=.nan", "ppo.kl.coef", ["finite"]),
        ("ppo.kl.coef=.inf", "ppo.kl.coef", ["finite"]),
        ("ppo.generation.temperature=0", "ppo.generation.temperature", ["above 0"]),
        ("sft.schedule=cosin", "sft.schedule", ["did you mean 'cosine'"]),
        ("ppo.advantage.estimator=grpo", "ppo.advantage.estimator", ["'gae'"]),
        ("ppo.optimizer.betas=[0.9]", "ppo.optimizer.betas.1", ["required"]),
        ("name=A B", "name", ["a-z, 0-9"]),
        ("seed=-1", "seed", ["at least 0"]),
        ("sft.data=3", "sft.data", ["3 is not a mapping"]),
        ("ppo.eval_every=null", "ppo.eval_every", ["null is not a whole number"]),
        ("metadata={a: 1}", "metadata.a", ["not a string"]),
        ("metadata={a: 1, b: 2}", "metadata.b", ["not a string"]),
        ("reward.held_out_share=0.6", "reward.held_out_share", ["at most 0.5"]),
        ("reward.timeout=0", "reward.timeout", ["above 0"]),
        ("model.uri=", "model.uri", ["null is not a string"]),
        ("ppo.clip.value_off=true", "ppo.clip.value_off", ["value: null"]),
    ],
)
def test_a_wrong_field_is_named_with_its_value(override: str, field: str, words: list[str]) -> None:
    found = violations(override)

    assert field in found
    assert all(word in found[field] for word in words), found[field]


@pytest.mark.parametrize("key", ["top_p", "top_k", "min_new_tokens", "repetition_penalty", "stop", "num_beams"])
def test_what_changes_the_sampling_distribution_is_refused_with_the_reason(key: str) -> None:
    found = violations(f"ppo.generation.{key}=0.9")

    description = found[f"ppo.generation.{key}"]
    assert "0.9 is refused" in description
    assert "distribution" in description
    assert "unknown" not in description


def test_all_errors_are_reported_at_once() -> None:
    found = violations("ppo.steps=0", "sft.epochs=0", "ppo.kl.coeff=1")

    assert set(found) == {"ppo.steps", "sft.epochs", "ppo.kl.coeff"}


@pytest.mark.parametrize(
    ("overrides", "field", "word"),
    [
        (["reward.model=m"], "reward", "data and model are given"),
        (["reward={}"], "reward", "none is given"),
        (["ppo.kl.estimator=k3"], "ppo.kl.estimator", "fixed point"),
        (["ppo.kl.estimator=k2"], "ppo.kl.estimator", "fixed point"),
        (["ppo.kl.placement=loss"], "ppo.kl.placement", "acknowledge_rescaled_beta"),
        (
            ["ppo.kl.placement=loss", "ppo.kl.estimator=k1", "ppo.kl.acknowledge_rescaled_beta=true"],
            "ppo.kl.estimator",
            "zero expected gradient",
        ),
        (["ppo.kl.controller=adaptive"], "ppo.kl.target", "required"),
        (
            ["checkpoint.keep_best=-eval/score_mean", "ppo.eval_prompts=null"],
            "checkpoint.keep_best",
            "ppo.eval_prompts",
        ),
        (["ppo.kl.controller=adaptive", "ppo.kl.target=6", "ppo.kl.horizon=64"], "ppo.kl.horizon", "above the 64"),
        (["ppo.kl.controller=adaptive", "ppo.kl.target=6", "ppo.kl.coef=0"], "ppo.kl.coef", "above 0"),
        (
            ["ppo.generation.ignore_eos=true", "ppo.generation.missing_eos_penalty=0.5"],
            "ppo.generation.missing_eos_penalty",
            "0.5",
        ),
        (["ppo.optimizer.minibatches=65"], "ppo.optimizer.minibatches", "64 sequences"),
        (["reward.scale=0"], "reward.scale", "erase"),
        (["ppo.eval_gold={data: x}"], "ppo.eval_gold.data", "model, functions or service"),
        (["ppo.eval_gold={model: m}", "ppo.eval_prompts=null"], "ppo.eval_gold", "eval_prompts"),
        (["sft.data.split=test"], "sft.data.split", "without splits"),
    ],
)
def test_rules_that_join_fields(overrides: list[str], field: str, word: str) -> None:
    assert word in violations(*overrides)[field]


@pytest.mark.parametrize(
    ("override", "field", "word"),
    [
        ("reward.min_accuracy=0.9", "reward.min_accuracy", "absent"),
        ("ppo.value_init=reward", "ppo.value_init", "reward model"),
        ("reward.functions=[{path: 'a:f'}, {path: 'b:f'}]", "reward.functions", "'f'"),
        ("reward.functions.0.path=score.py", "reward.functions.0.path", "module:function"),
        ("reward={service: 'host:99999'}", "reward.service", "65535"),
        ("reward={service: 'http://host'}", "reward.service", "host:port"),
    ],
)
def test_rules_of_rewards_from_outside(override: str, field: str, word: str) -> None:
    assert word in violations(override, document=FUNCTIONS)[field]


@pytest.mark.parametrize("path", ["a.b:f", "score.py:count", "file:///x y/score.py:count", "./s.py:_f1"])
def test_paths_of_functions(path: str) -> None:
    reward = parse_spec(FUNCTIONS | {"reward": {"functions": [{"path": path}]}}).reward

    assert reward.functions[0].term == path.rpartition(":")[2]


@pytest.mark.parametrize("path", ["f", ":f", "a::f", "a:", "a:1f", "a: f", ""])
def test_what_is_no_path_of_a_function(path: str) -> None:
    document = FUNCTIONS | {"reward": {"functions": [{"path": path}]}}

    assert set(violations(document=document)) == {"reward.functions.0.path"}


def test_defaults_that_follow_other_fields() -> None:
    outside = parse_spec(FUNCTIONS)
    ordinary = parse_spec(apply_overrides(FUNCTIONS, ["ppo.generation.ignore_eos=true"]))
    loss = parse_spec(apply_overrides(FUNCTIONS, ["ppo.kl={placement: loss, acknowledge_rescaled_beta: true}"]))
    trained = parse_spec(load_yaml(MINIMAL))

    assert (outside.reward.center, trained.reward.center) == (False, True)
    assert ordinary.ppo.generation.missing_eos_penalty == 0.0
    assert loss.ppo.kl.estimator == "k2"


def test_the_resolved_document_has_every_default_and_parses_to_the_same_spec() -> None:
    for document in (load_yaml(MINIMAL), FUNCTIONS, apply_overrides(FUNCTIONS, ["ppo.clip.value=null"])):
        spec = parse_spec(document)

        resolved = resolved_document(spec)

        assert parse_spec(resolved) == spec
        assert resolved_document(parse_spec(resolved)) == resolved
        assert resolved["ppo"]["optimizer"]["epochs"] == 4


def test_a_document_that_is_no_mapping_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="mapping"):
        parse_spec([1])  # type: ignore[arg-type]
