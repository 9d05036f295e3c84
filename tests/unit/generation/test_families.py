"""Each family of docs/models.md: what is sampled and scored equals transformers' own forward pass, row by row."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.unit.models.families import FAMILIES, WINDOW, Family, save_family
from transformers import AutoModelForCausalLM

from quatrain.config import ProcessConfig
from quatrain.generation.engines.base import Chunk, Sampling
from quatrain.generation.engines.transformers import make
from quatrain.models.loading import load_causal_lm
from quatrain.models.logprobs import completion_logprobs

NEW_TOKENS = 12
# The second prompt and every completion are longer than a window, so old tokens leave it in both phases.
PROMPTS = [np.array([3, 1, 4], np.int32), np.arange(3, 3 + WINDOW + 4, dtype=np.int32), np.array([9], np.int32)]


# The bounds of the probe before a job's first step: experts may change with the rounding.
BFLOAT16_MEAN, BFLOAT16_MAX = 5e-2, 1.0


def by_transformers(folder: Path, prompt: np.ndarray, completion: np.ndarray) -> np.ndarray:
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    model.train(False)
    ids = torch.tensor(np.concatenate([prompt, completion]).astype(np.int64))
    with torch.no_grad():
        logprobs = torch.log_softmax(model(input_ids=ids[None], use_cache=False).logits[0].float(), dim=-1)
    picked: np.ndarray = logprobs[len(prompt) - 1 : -1].gather(1, ids[len(prompt) :, None])[:, 0].numpy()
    return picked


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.title)
def test_bfloat16_samples_have_the_learners_logprobs_to_its_rounding(family: Family, tmp_path: Path) -> None:
    folder = save_family(tmp_path / "m", family)
    engine = make(ProcessConfig.model_validate({"compute": {"device": "cpu"}}), lambda uri, digest: folder)
    chunk = Chunk(PROMPTS * 4, list(range(12)), Sampling(NEW_TOKENS, 1.0, ignore_eos=True, eos_token_ids=()))

    completions = engine.load(folder, "bfloat16", None).generate(chunk)

    tokens = [completion.token_ids for completion in completions]
    model = load_causal_lm(folder, dtype="bfloat16")
    scored = completion_logprobs(model, chunk.prompts, tokens, temperature=1.0, token_budget=99)
    difference = np.abs(np.concatenate(scored) - np.concatenate([each.logprobs for each in completions]))
    assert difference.mean() < BFLOAT16_MEAN
    assert difference.max() < BFLOAT16_MAX


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.title)
def test_samples_have_the_logprobs_of_transformers(family: Family, tmp_path: Path) -> None:
    folder = save_family(tmp_path / "m", family)
    engine = make(ProcessConfig.model_validate({"compute": {"device": "cpu"}}), lambda uri, digest: folder)
    policy = engine.load(folder, "float32", None)
    chunk = Chunk(PROMPTS, [1, 2, 3], Sampling(NEW_TOKENS, 1.0, ignore_eos=True, eos_token_ids=()))

    completions = policy.generate(chunk)

    tokens = [completion.token_ids for completion in completions]
    scored = completion_logprobs(load_causal_lm(folder), PROMPTS, tokens, temperature=1.0, token_budget=99)
    for prompt, completion, ours in zip(PROMPTS, completions, scored, strict=True):
        theirs = by_transformers(folder, prompt, completion.token_ids)
        np.testing.assert_allclose(completion.logprobs, theirs, atol=2e-5, rtol=0)
        np.testing.assert_allclose(ours, theirs, atol=2e-5, rtol=0)
        assert theirs.std() > 0.05, "the model is too even to tell one token from another"
