"""Every way in which a function or a reward model can fail is a typed outcome, never a number."""

import asyncio
import json
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.unit.reward.scenery import LETTERS, ids_of, make_reward_model, make_tokenizer

from quatrain.digests import sha256_hex
from quatrain.errors import (
    DeadlineExpired,
    InvalidData,
    QuatrainError,
    RewardFunctionError,
    Unavailable,
)
from quatrain.refs import ModelRef
from quatrain.reward.backends.functions import FunctionBackend, FunctionSettings
from quatrain.reward.backends.models import ModelBackend, ModelSettings
from quatrain.reward.backends.remote import RemoteBackend
from quatrain.reward.backends.sandbox import CodeLimits
from quatrain.reward.samples import RawSample
from quatrain.reward.service import Backends, RewardService, ScoreCall, Scored
from quatrain.storage.folders import FolderCache
from quatrain.storage.memory import MemoryStore

Outcomes = tuple[Scored, ...] | QuatrainError

CODE = textwrap.dedent("""
    import ctypes, multiprocessing, os, signal, sys, threading, time

    def exception(completions, **kwargs):
        raise KeyError("topic")

    def assertion(completions, **kwargs):
        assert False

    def interrupt(completions, **kwargs):
        raise KeyboardInterrupt

    def recursion(completions, **kwargs):
        return recursion(completions, **kwargs)

    def short(completions, **kwargs):
        return [1.0]

    def long(completions, **kwargs):
        return [1.0] * 5

    def nothing(completions, **kwargs):
        pass

    def text(completions, **kwargs):
        return ["0.5"] * len(completions)

    def scalar(completions, **kwargs):
        return 1.0

    def generator(completions, **kwargs):
        return (1.0 for _ in completions)

    def verl_dict(completions, **kwargs):
        return {"score": 1.0, "acc": True}

    def pair(completions, **kwargs):
        return [1.0] * len(completions), {"info": 1}

    def column(completions, **kwargs):
        return [[1.0]] * len(completions)

    def endless(completions, **kwargs):
        while True:
            pass

    def exits(completions, **kwargs):
        raise SystemExit(0)

    def leaves(completions, **kwargs):
        os._exit(0)

    def kills_itself(completions, **kwargs):
        os.kill(os.getpid(), signal.SIGKILL)

    def crashes(completions, **kwargs):
        ctypes.string_at(0)

    def memory(completions, **kwargs):
        kept = []
        while True:
            kept.append(bytearray(2**24))

    def deadlock(completions, **kwargs):
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()

    def fork_bomb(completions, **kwargs):
        while True:
            os.fork()

    def huge_reply(completions, log_extra, **kwargs):
        log_extra("much", ["x" * (33 * 2**20)] * len(completions))
        return [1.0] * len(completions)

    def closes_everything(completions, **kwargs):
        os.closerange(0, 1000)
        return [1.0] * len(completions)

    def stdout_noise(completions, **kwargs):
        for descriptor in range(3, 20):
            try:
                os.write(descriptor, b"noise")
            except OSError:
                pass
        return [1.0] * len(completions)

    def nan(completions, **kwargs):
        return [float("nan"), 1.0]

    def infinite(completions, **kwargs):
        return [float("-inf"), 1.0]

    def too_large(completions, **kwargs):
        return [10**400, 1.0]

    def none(completions, **kwargs):
        return [None, 1.0]

    def nan_in_a_term(completions, **kwargs):
        return {"good": [1.0, 1.0], "bad": [float("nan"), 1.0]}

    def cancels_out(completions, **kwargs):
        return {"up": [float("inf"), 1.0], "down": [float("-inf"), 1.0]}

    def huge_sum(completions, **kwargs):
        return {"one": [1.7e308, 1.0], "two": [1.7e308, 1.0]}
""").encode()

FAILED_CALLS = {
    "exception": "raised KeyError: 'topic'",
    "assertion": "raised AssertionError",
    "interrupt": "raised KeyboardInterrupt",
    "recursion": "raised RecursionError",
    "short": "has 1 values for 2 samples",
    "long": "has 5 values for 2 samples",
    "nothing": "the value is a NoneType",
    "text": "'0.5' (str) where a number or None is needed",
    "scalar": "the value is a float",
    "generator": "the value is a generator",
    "verl_dict": "term 'score' is a float",
    "pair": "where a number or None is needed",
    "column": "where a number or None is needed",
    "endless": "did not return within 2 s",
    "exits": "ended with exit code 0",
    "leaves": "ended with exit code 0",
    "kills_itself": "was ended by SIGKILL",
    "crashes": "was ended by SIGSEGV",
    "memory": "raised MemoryError",
    "deadlock": "did not return within 2 s",
    "fork_bomb": "raised PermissionError",
    "huge_reply": "sent an invalid answer: it has",
    "closes_everything": "",
    "stdout_noise": "sent an invalid answer",
    "too_large": "",
}
REFUSED_SAMPLES = {
    "nan": "term 'nan' is nan",
    "infinite": "term 'infinite' is -inf",
    "nan_in_a_term": "term 'bad' is nan",
    "cancels_out": "term 'up' is inf; term 'down' is -inf",
    "huge_sum": "the weighted sum is inf",
}


def score(tmp_path: Path, section: dict[str, Any], samples: tuple[RawSample, ...]) -> Any:
    """The outcomes of the samples, or the error of the call, from a service with all its real backends."""

    async def main() -> Any:
        store, folders = MemoryStore(), FolderCache(MemoryStore(), tmp_path / "cache", 2**30)
        store.put(f"data/sha256/{sha256_hex(CODE)}", CODE)
        settings = FunctionSettings(allow_code=True, code_limits=CodeLimits(512 * 2**20))
        models = ModelBackend(folders, ModelSettings(device="cpu", threads=1))
        service = RewardService(folders, Backends(models, FunctionBackend(store, settings), RemoteBackend()))
        tokenizer = ModelRef(make_tokenizer(tmp_path / "tokenizer").as_uri(), "")
        call = ScoreCall("job", samples, json.dumps(section), tokenizer)

        try:
            return (await service.score(call)).scores
        except QuatrainError as error:
            return error
        finally:
            await service.close()

    return asyncio.run(main())


def raw(prompt: str = "ab", completion: str = "cd$") -> RawSample:
    return RawSample(ids_of(prompt), ids_of(completion), json.dumps(prompt), "stop")


TWO = (raw(), raw("b", "d$"))


def function(name: str, **more: Any) -> dict[str, Any]:
    return {"functions": [{"path": f"r.py:{name}", "code_digest": sha256_hex(CODE), **more}], "timeout": 2.0}


@pytest.mark.parametrize("name", FAILED_CALLS)
def test_a_call_of_a_function_that_fails_is_a_typed_error(tmp_path: Path, name: str) -> None:
    outcome = score(tmp_path, function(name), TWO)

    assert isinstance(outcome, RewardFunctionError), outcome
    assert outcome.code_reason == "REWARD_FUNCTION_FAILED"
    assert f"reward function 'r.py:{name}'" in outcome.message
    assert FAILED_CALLS[name] in outcome.message


@pytest.mark.parametrize("name", REFUSED_SAMPLES)
@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_value_that_is_no_number_refuses_its_sample_alone(tmp_path: Path, name: str, clip: float | None) -> None:
    """Neither the cap of the function nor that of the section makes a number of it."""
    section = function(name) | {"clip": clip}

    bad, good = score(tmp_path, section, TWO)

    assert (bad.outcome, bad.score, bad.reason) == ("refused", 0.0, REFUSED_SAMPLES[name])
    assert good.outcome == "scored"


def test_none_is_skipped(tmp_path: Path) -> None:
    assert [each.outcome for each in score(tmp_path, function("none"), TWO)] == ["skipped", "scored"]


def test_a_reward_model_that_gives_nan_refuses_every_sample(tmp_path: Path) -> None:
    folder = make_reward_model(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["score.weight"] = torch.full_like(weights["score.weight"], float("nan"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    outcomes = score(tmp_path, {"models": [{"uri": folder.as_uri()}]}, TWO)

    assert [(each.outcome, each.reason) for each in outcomes] == [("refused", "term 'model' is nan")] * 2


def test_a_sample_that_a_reward_model_cannot_read_is_refused_alone(tmp_path: Path) -> None:
    folder = make_reward_model(tmp_path / "model")

    bad, good = score(tmp_path, {"models": [{"uri": folder.as_uri()}]}, (raw("ab" * 20), raw()))

    assert (bad.outcome, bad.reason) == ("refused", "model: 43 tokens, and the reward model reads at most 32")
    assert good.outcome == "scored"


def test_a_conversation_that_a_reward_models_template_refuses_is_refused_alone(tmp_path: Path) -> None:
    folder = make_reward_model(tmp_path / "model", tokens=[*LETTERS, "e"])
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["chat_template"] = "{{ raise_exception('only judges may speak') }}"
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    conversation = RawSample(ids_of("a"), ids_of("c$"), '[{"role": "user", "content": "a"}]', "stop")

    bad, good = score(tmp_path, {"models": [{"uri": folder.as_uri()}]}, (conversation, raw()))

    assert bad.outcome == "refused"
    assert "only judges may speak" in bad.reason
    assert good.outcome == "scored"


def test_a_reward_model_that_is_none_is_a_typed_error(tmp_path: Path) -> None:
    outcome = score(tmp_path, {"models": [{"uri": make_tokenizer(tmp_path / "none").as_uri()}]}, TWO)

    assert isinstance(outcome, InvalidData)


def test_another_service_that_is_away_is_transient(tmp_path: Path) -> None:
    outcome = score(tmp_path, {"service": "127.0.0.1:1", "timeout": 5.0}, TWO)

    assert isinstance(outcome, Unavailable | DeadlineExpired)
    assert "127.0.0.1:1" in outcome.message
