"""What the sampler must get right: the distribution, its logprobs, its seeds and its ends."""

import math

import numpy as np
import pytest
import torch
from tests.unit.models.tiny_models import ARCHITECTURES, tiny_model

from quatrain.errors import RunFailed
from quatrain.generation.engines.base import Chunk, Sampling
from quatrain.generation.engines.decoding import generate, sample_tokens
from quatrain.generation.engines.uniforms import uniforms
from quatrain.models.logprobs import completion_logprobs
from quatrain.models.output_head import output_head

GENERATOR = np.random.default_rng(11)
RAGGED = [GENERATOR.integers(0, 40, size).astype(np.int32) for size in (4, 1, 17, 9, 9, 2)]
SEEDS = [2**64 - 1, 0, 17, 18, 19, 20]


def sampling(tokens: int = 12, *, temperature: float = 1.0, eos: tuple[int, ...] = ()) -> Sampling:
    return Sampling(tokens, temperature, ignore_eos=not eos, eos_token_ids=eos)


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_logprobs_equal_a_plain_forward_pass_in_a_ragged_chunk_that_shrinks(kind: str, temperature: float) -> None:
    model = tiny_model(kind)

    completions = generate(model, Chunk(RAGGED, SEEDS, sampling(20, temperature=temperature, eos=(3, 5, 7, 8))))

    assert len({len(row.token_ids) for row in completions}) > 2
    for prompt, row in zip(RAGGED, completions, strict=True):
        (plain,) = completion_logprobs(model, [prompt], [row.token_ids], temperature=temperature, token_budget=64)
        np.testing.assert_allclose(row.logprobs, plain, atol=1e-5, rtol=0)
        assert row.logprobs.dtype == np.float32
        assert row.token_ids.dtype == np.int32


def test_the_same_chunk_gives_the_same_bits_and_a_sample_follows_its_own_seed() -> None:
    model = tiny_model()
    chunk = Chunk(RAGGED, SEEDS, sampling(eos=(3, 5)))

    first, again = generate(model, chunk), generate(model, chunk)
    alone = [generate(model, Chunk([p], [s], sampling(eos=(3, 5))))[0] for p, s in zip(RAGGED, SEEDS, strict=True)]
    other_seed = generate(model, Chunk(RAGGED[:1], [1], sampling(eos=(3, 5))))[0]

    for one, two, single in zip(first, again, alone, strict=True):
        assert np.array_equal(one.token_ids, two.token_ids)
        assert np.array_equal(one.logprobs, two.logprobs)
        assert np.array_equal(one.token_ids, single.token_ids)
    assert not np.array_equal(other_seed.token_ids, alone[0].token_ids)


def test_any_of_several_eos_ids_ends_a_completion_and_belongs_to_it() -> None:
    model = tiny_model(vocabulary=6)
    prompts = [np.array([1, 2], np.int32)] * 40

    completions = generate(model, Chunk(prompts, list(range(40)), sampling(6, eos=(0, 4))))

    for row in completions:
        ends = np.isin(row.token_ids, (0, 4))
        assert row.finish_reason == ("stop" if ends[-1] else "length")
        assert not ends[:-1].any()
        assert len(row.token_ids) == len(row.logprobs)
        assert row.finish_reason == "stop" or len(row.token_ids) == 6
    assert {int(row.token_ids[-1]) for row in completions if row.finish_reason == "stop"} == {0, 4}
    assert any(row.finish_reason == "length" for row in completions)


def test_ignore_eos_and_pad_ids_are_ordinary_symbols() -> None:
    model = tiny_model(vocabulary=6)
    model.config.pad_token_id = 0
    prompts = [np.array([0, 2, 0], np.int32), np.array([0], np.int32)] * 10
    ignoring = Sampling(8, 1.0, ignore_eos=True, eos_token_ids=(1,))

    completions = generate(model, Chunk(prompts, list(range(20)), ignoring))

    everything = np.concatenate([row.token_ids for row in completions])
    assert all(len(row.token_ids) == 8 and row.finish_reason == "length" for row in completions)
    assert {0, 1} <= set(everything.tolist())
    plain = completion_logprobs(model, prompts, [r.token_ids for r in completions], temperature=1.0, token_budget=99)
    np.testing.assert_allclose(
        np.concatenate([row.logprobs for row in completions]), np.concatenate(plain), atol=1e-5, rtol=0
    )


def chi_square(counts: np.ndarray, probabilities: np.ndarray) -> float:
    expected = probabilities * counts.sum()
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_samples_follow_the_distribution(temperature: float) -> None:
    """4,000 completions of two tokens over 4 symbols: 16 outcomes. Seeds are fixed, so the statistic is a constant.

    The bound is the 99.9 % point of chi-square with 15 degrees of freedom.
    """
    model = tiny_model(vocabulary=4)
    prompt = np.array([1, 3], np.int32)
    pairs = [np.array([first, second], np.int32) for first in range(4) for second in range(4)]
    exact = completion_logprobs(model, [prompt] * 16, pairs, temperature=temperature, token_budget=999)
    probabilities = np.exp([row.sum() for row in exact])

    completions = generate(model, Chunk([prompt] * 4000, list(range(4000)), sampling(2, temperature=temperature)))

    counts = np.bincount([4 * int(row.token_ids[0]) + int(row.token_ids[1]) for row in completions], minlength=16)
    assert probabilities.sum() == pytest.approx(1.0, abs=1e-5)
    assert chi_square(counts, probabilities) < 37.7


def test_a_token_of_probability_zero_is_never_drawn() -> None:
    logits = torch.tensor([[0.0, 0.0, -math.inf]]).repeat(3, 1)
    edges = torch.tensor([0.0, 0.5, 1.0 - 2**-53], dtype=torch.float64)

    tokens, logprobs = sample_tokens(logits, edges)

    assert tokens.tolist() == [0, 1, 1]
    torch.testing.assert_close(logprobs, torch.full((3,), math.log(0.5)))


def test_uniforms_depend_on_the_seed_and_are_prefixes_of_one_another() -> None:
    assert uniforms(5, 3).tolist() == uniforms(5, 8)[:3].tolist()
    assert uniforms(5, 3).tolist() != uniforms(6, 3).tolist()
    assert uniforms(2**64 - 1, 1)[0] < 1


def test_weights_that_are_not_finite_fail_clearly() -> None:
    model = tiny_model()
    torch.nn.init.constant_(output_head(model).weight, math.nan)

    with pytest.raises(RunFailed, match="not finite"):
        generate(model, Chunk(RAGGED, SEEDS, sampling()))
