from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.reward.scenery import EOS, make_reward_model, make_tokenizer

from quatrain.reward.samples import Malformed, PolicyTokenizer, RawSample, read_sample

SOUND = RawSample((0, 1), (2, 3, EOS), '"ab"', "stop", '{"answer": 7}')


def test_a_sound_sample_has_text_without_special_tokens_and_ids_with_them(tmp_path: Path) -> None:
    sample = read_sample(SOUND, PolicyTokenizer.load(make_tokenizer(tmp_path)))

    assert (sample.prompt, sample.completion, sample.extra) == ("ab", "cd", {"answer": 7})
    assert sample.completion_ids == (2, 3, EOS)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (replace(SOUND, completion_ids=()), "completion is empty"),
        (replace(SOUND, finish_reason=None), "finish reason"),
        (replace(SOUND, completion_ids=(2, 6)), "completion token 6 at position 1 is outside the vocabulary of 6"),
        (replace(SOUND, prompt_ids=(-1,)), "prompt token -1"),
        (replace(SOUND, prompt_json="ab"), "prompt_json is not JSON"),
        (replace(SOUND, prompt_json="7"), "neither a string nor a list of messages"),
        (replace(SOUND, prompt_json="[]"), "neither a string nor a list of messages"),
        (replace(SOUND, prompt_json='"\\ud800"'), "surrogate"),
        (replace(SOUND, extra_json="[1]"), "extra_json is not an object"),
        (replace(SOUND, extra_json="{"), "extra_json is not JSON"),
    ],
)
def test_a_malformed_sample_has_its_reason(tmp_path: Path, raw: RawSample, reason: str) -> None:
    policy = PolicyTokenizer.load(make_tokenizer(tmp_path))

    with pytest.raises(Malformed, match=reason):
        read_sample(raw, policy)


def test_ids_that_the_model_has_beyond_its_tokenizer_are_in_the_vocabulary(tmp_path: Path) -> None:
    folder = make_reward_model(tmp_path, tokens=[*"abcd ", "<eos>", "e", "f"])
    make_tokenizer(folder)

    policy = PolicyTokenizer.load(folder)

    assert (policy.tokenizer.vocab_size, policy.vocab_size) == (6, 8)
    assert read_sample(replace(SOUND, completion_ids=(2, 7)), policy).completion == "c"
