"""Bad input, as a person gives it to the command line: exit code 3, the field by name, nothing queued."""

import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.closed_form.models import TinyModel
from tests.e2e.stack import CommandResult, Stack, running_stack
from tests.e2e.tasks import Spec, changed, count_symbol, write_jsonl, write_spec

INVALID = 3
REWARDS = """
import time

def raises(completions, **kwargs):
    raise ValueError("no idea how to score this")

def wrong_length(completions, **kwargs):
    return [1.0]

def not_a_number(completions, **kwargs):
    return [float("nan")] * len(completions)

def text(completions, **kwargs):
    return ["good"] * len(completions)

def hangs(completions, **kwargs):
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("bad-input")) as stack:
        yield stack


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    """A good spec; each test breaks it in one place."""
    return count_symbol(tmp_path)


def _submit(stack: Stack, folder: Path, spec: Spec) -> CommandResult:
    return stack.run_cli("job", "submit", str(write_spec(folder / "spec.yaml", spec)))


def _assert_refused(stack: Stack, result: CommandResult, *words: str) -> None:
    assert result.code == INVALID, f"exit code {result.code}: {result.stderr}"
    for word in words:
        assert word in result.stderr, result.stderr
    assert "Traceback" not in result.stderr
    with stack.client() as client, stack.redis() as redis:
        assert client.list() == []
        assert redis.xlen("quatrain:tasks:default") == 0


FIELDS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "unknown key": ({"ppo__step": 6}, ("ppo.step", "ppo.steps")),
    "unknown section": ({"pppo": {}}, ("pppo", "ppo")),
    "wrong type": ({"ppo__steps": "six"}, ("ppo.steps", "six")),
    "number as text": ({"ppo__kl__coef": "0.5"}, ("ppo.kl.coef",)),
    "out of bounds": ({"ppo__generation__temperature": 0.0}, ("ppo.generation.temperature", "0")),
    "negative": ({"ppo__optimizer__policy_lr": -1e-3}, ("ppo.optimizer.policy_lr",)),
    "k3 in the reward": ({"ppo__kl__estimator": "k3"}, ("ppo.kl.estimator", "k3")),
    "k1 in the loss": (
        {"ppo__kl__placement": "loss", "ppo__kl__estimator": "k1", "ppo__kl__acknowledge_rescaled_beta": True},
        ("ppo.kl.estimator", "k1"),
    ),
    "top_p": ({"ppo__generation__top_p": 0.9}, ("ppo.generation.top_p", "distribution")),
    "top_k": ({"ppo__generation__top_k": 5}, ("ppo.generation.top_k", "distribution")),
    "more minibatches than samples": ({"ppo__optimizer__minibatches": 65}, ("ppo.optimizer.minibatches",)),
    "two rewards": ({"reward__model": "models://rm"}, ("reward",)),
    "no reward": ({"reward": {}}, ("reward",)),
    "penalty where nothing ends": (
        {"ppo__generation__missing_eos_penalty": 1.0},
        ("ppo.generation.missing_eos_penalty",),
    ),
    "missing prompts": ({"ppo__prompts": "nowhere.jsonl"}, ("ppo.prompts", "nowhere.jsonl")),
    "missing model": ({"model__uri": "file://no-model"}, ("model.uri", "no-model")),
    "missing code": (
        {"reward__functions": [{"path": "nowhere.py:score"}]},
        ("reward.functions", "nowhere.py"),
    ),
    "unknown model name": ({"model__uri": "models://nobody"}, ("model.uri", "nobody")),
    "unknown digest": ({"ppo__prompts": "sha256:" + "0" * 64}, ("ppo.prompts",)),
    "too long for the model": ({"ppo__generation__max_new_tokens": 63}, ("ppo.generation.max_new_tokens", "64")),
}


@pytest.mark.parametrize("case", FIELDS)
def test_wrong_field(stack: Stack, spec: Spec, tmp_path: Path, case: str) -> None:
    values, words = FIELDS[case]

    result = _submit(stack, tmp_path, changed(spec, **values))

    _assert_refused(stack, result, *words)


def test_reason_of_a_refused_sampling_key_is_not_that_it_is_unknown(stack: Stack, spec: Spec, tmp_path: Path) -> None:
    result = _submit(stack, tmp_path, changed(spec, ppo__generation__top_p=0.9))

    assert "did you mean" not in result.stderr
    assert "unknown" not in result.stderr.lower()


def test_all_wrong_fields_are_named_at_once(stack: Stack, spec: Spec, tmp_path: Path) -> None:
    result = _submit(stack, tmp_path, changed(spec, ppo__steps=0, seed=-1, ppo__kl__coef=-0.5))

    _assert_refused(stack, result, "ppo.steps", "seed", "ppo.kl.coef")


def test_broken_yaml(stack: Stack, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("name: x\nppo: {steps: [6\n")

    _assert_refused(stack, stack.run_cli("job", "submit", str(path)), "spec.yaml:3:1")


def test_spec_file_that_is_not_there(stack: Stack, tmp_path: Path) -> None:
    _assert_refused(stack, stack.run_cli("job", "submit", str(tmp_path / "no.yaml")), "no.yaml")


DATA: dict[str, tuple[list[dict[str, Any]], tuple[str, ...]]] = {
    "no prompt column": ([{"question": "s1 s2"}], ("ppo.prompts", "prompt")),
    "empty": ([], ("ppo.prompts",)),
    "empty prompt": ([{"prompt": ""}], ("ppo.prompts",)),
    "prompt of a wrong type": ([{"prompt": 7}], ("ppo.prompts",)),
    "longer than max_prompt_length": ([{"prompt": " ".join(["s1"] * 9)}], ("ppo.prompts", "max_prompt_length")),
    "not in the vocabulary": ([{"prompt": "good morning"}], ("ppo.prompts", "good morning")),
}


@pytest.mark.parametrize("case", DATA)
def test_data_that_cannot_be_used(stack: Stack, spec: Spec, tmp_path: Path, case: str) -> None:
    rows, words = DATA[case]
    path = write_jsonl(tmp_path / "bad.jsonl", rows)

    result = _submit(stack, tmp_path, changed(spec, ppo__prompts=str(path)))

    _assert_refused(stack, result, *words)


def test_prompt_longer_than_the_model(stack: Stack, spec: Spec, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "long.jsonl", [{"prompt": " ".join(["s1"] * 62)}])

    result = _submit(stack, tmp_path, changed(spec, ppo__prompts=str(path), ppo__max_prompt_length=100))

    _assert_refused(stack, result, "ppo.generation.max_new_tokens", "62", "64")


@pytest.mark.parametrize(
    ("section", "field"),
    [({"sft": {"data": "{path}"}}, "sft.data"), ({"reward": {"data": "{path}"}}, "reward.data")],
)
def test_training_data_without_the_needed_columns(
    stack: Stack, spec: Spec, tmp_path: Path, section: dict[str, dict[str, str]], field: str
) -> None:
    path = write_jsonl(tmp_path / "bad.jsonl", [{"prompt": "s1 s2"}])
    (name,) = section

    result = _submit(stack, tmp_path, {**spec, name: {"data": str(path)}})

    _assert_refused(stack, result, field)


def _without_eos(base: Path) -> None:
    for name, keys in (("tokenizer_config.json", ["eos_token"]), ("config.json", ["eos_token_id"])):
        _edit_json(base / name, keys)
    _edit_json(base / "generation_config.json", ["eos_token_id"])


def _edit_json(path: Path, without: list[str]) -> None:
    if path.exists():
        document = json.loads(path.read_text())
        path.write_text(json.dumps({key: value for key, value in document.items() if key not in without}))


def _cut(base: Path) -> None:
    path = base / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def _garbage(base: Path) -> None:
    (base / "model.safetensors").write_bytes(b"\xff" * 4096)


def _pickled(base: Path) -> None:
    (base / "model.safetensors").unlink()
    (base / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": [0.0]}))


def _own_code(base: Path) -> None:
    path = base / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto_map": {"AutoModel": "mine.Model"}}))


def _no_tokenizer(base: Path) -> None:
    (base / "tokenizer.json").unlink()


MODELS: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "tokenizer without EOS": (_without_eos, ("model.uri", "end-of-sequence")),
    "truncated safetensors": (_cut, ("model.uri", "model.safetensors")),
    "garbage for safetensors": (_garbage, ("model.uri", "model.safetensors")),
    "pickle weights": (_pickled, ("model.uri", "pytorch_model.bin")),
    "code in the folder": (_own_code, ("model.uri", "auto_map")),
    "no tokenizer": (_no_tokenizer, ("model.uri", "tokenizer.json")),
}


@pytest.mark.parametrize("case", MODELS)
def test_model_that_cannot_be_used(stack: Stack, spec: Spec, tmp_path: Path, case: str) -> None:
    spoil, words = MODELS[case]
    spoil(tmp_path / "base")

    _assert_refused(stack, _submit(stack, tmp_path, spec), *words)


def test_reference_with_other_tokens(stack: Stack, spec: Spec, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    count_symbol(tmp_path / "other", TinyModel(8))

    result = _submit(stack, tmp_path, changed(spec, reference__model=f"file://{tmp_path / 'other' / 'base'}"))

    _assert_refused(stack, result, "reference.model", "8", "6")


FUNCTIONS = {
    "raises": ("no idea how to score this", "raises"),
    "wrong_length": ("wrong_length", "1"),
    "not_a_number": ("nan",),
    "text": ("text",),
    "hangs": ("hangs", "2"),
    "missing": ("missing",),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_reward_function_that_fails(stack: Stack, spec: Spec, tmp_path: Path, name: str) -> None:
    (tmp_path / "bad.py").write_text(REWARDS)
    reward = {"functions": [{"path": f"{tmp_path / 'bad.py'}:{name}"}], "timeout": 2.0}

    result = _submit(stack, tmp_path, {**spec, "reward": reward})

    _assert_refused(stack, result, "reward", *FUNCTIONS[name])


def test_reward_code_that_does_not_import(stack: Stack, spec: Spec, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("import a_module_that_nobody_has\n")
    reward = {"functions": [{"path": f"{tmp_path / 'bad.py'}:score"}]}

    result = _submit(stack, tmp_path, {**spec, "reward": reward})

    _assert_refused(stack, result, "reward", "a_module_that_nobody_has")


def test_gold_that_fails_is_found_before_queueing(stack: Stack, spec: Spec, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(REWARDS)
    gold = {"functions": [{"path": f"{tmp_path / 'bad.py'}:raises"}]}

    result = _submit(stack, tmp_path, changed(spec, ppo__eval_prompts=spec["ppo"]["prompts"], ppo__eval_gold=gold))

    _assert_refused(stack, result, "ppo.eval_gold", "no idea how to score this")


def test_the_same_spec_unbroken_is_fine(stack: Stack, spec: Spec, tmp_path: Path) -> None:
    result = stack.run_cli("job", "submit", str(write_spec(tmp_path / "spec.yaml", spec)), "--dry-run")

    assert result.code == 0, result.stderr
    jobs = stack.run_cli("job", "list", "-o", "json")
    assert json.loads(jobs.stdout) == []
