"""One tiny job a family: SFT, reward model and PPO through a stack of real processes, and what it showed."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tests.closed_form.models import TinyModel, build
from tests.e2e.stack import Stack, finish
from tests.e2e.tasks import REWARDS, Spec, changed, pipeline
from tests.unit.models.families import Family, save_family
from transformers import AutoModelForCausalLM

from quatrain.client import Client
from quatrain.errors import InvalidInput
from quatrain.generation.engines.base import Chunk, Sampling
from quatrain.generation.engines.decoding import generate
from quatrain.models.loading import load_causal_lm
from quatrain.text.classifiers import NO_CLASSIFIER

TOKENS = 12
ROWS = TOKENS + 4
"""Rows of the embedding: as with most real models, more than the tokenizer has tokens."""
FULL, FUNCTION, REFUSED = "SFT, reward model, PPO", "SFT, PPO with a reward function", "refused"
_GREEDY = Sampling(8, 1e-4, ignore_eos=True, eos_token_ids=())


@dataclass(frozen=True)
class Outcome:
    """What became of a family.

    stages: what ran; mismatch: largest difference of sampler and learner in nats over all PPO steps; reason: of a
    refusal, for families that are not refused of their reward model.
    """

    title: str
    model_type: str
    stages: str
    mismatch: float = 0.0
    reason: str = ""


def run_family(stack: Stack, client: Client, family: Family, folder: Path) -> Outcome:
    """Run the family's job, or have it refused, and look at the finished model."""
    spec = _spec(folder, family)
    reason = ""
    if family.model_type in NO_CLASSIFIER:
        reason = _refusal(client, spec)
        spec = changed(spec, reward={"functions": [{"path": f"{REWARDS}:count_symbol"}]})
    job = finish(stack, client, client.submit(spec))
    found = [row["sampler/mismatch_max"] for row in client.metrics(job.id)]
    mismatches = [value for value in found if isinstance(value, float)]
    assert len(mismatches) == spec["ppo"]["steps"]
    client.download(job.id, folder / "finished")
    _check_finished(folder / "finished")
    return Outcome(
        family.title, family.model_type, FUNCTION if reason else FULL, float(f"{max(mismatches):.0e}"), reason
    )


def refuse_family(client: Client, family: Family, folder: Path) -> Outcome:
    """Return the outcome of a family whose models are refused at submission."""
    return Outcome(family.title, family.model_type, REFUSED, reason=_refusal(client, _spec(folder, family)))


def _spec(folder: Path, family: Family) -> Spec:
    spec = changed(
        pipeline(folder),
        ppo__steps=3,
        ppo__prompts_per_step=8,
        ppo__chunk_size=8,
        name=folder.name,
        deterministic=False,
    )
    del spec["checkpoint"]
    base = folder / "family"
    build(base, TinyModel(TOKENS, eos_id=TOKENS - 1, pad_id=2))
    save_family(base, family, vocabulary=ROWS, end=TOKENS - 1)
    return {**spec, "model": {"uri": f"file://{base}"}}


def _refusal(client: Client, spec: Spec) -> str:
    try:
        client.submit(spec, validate_only=True)
    except InvalidInput as error:
        return "; ".join(violation.description for violation in error.violations)
    raise AssertionError(f"{spec['name']} was not refused")


def _check_finished(folder: Path) -> None:
    """Check that transformers alone writes the greedy answers that the sampler writes, padding rows left out."""
    prompts = [np.array([3, 4, 5], np.int32), np.arange(11, dtype=np.int32)]
    ours = generate(load_causal_lm(folder), Chunk(prompts, [1, 2], _GREEDY))
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    model.train(False)
    for prompt, answer in zip(prompts, ours, strict=True):
        ids = torch.tensor(prompt.astype(np.int64))[None]
        with torch.no_grad():
            for _ in range(_GREEDY.max_new_tokens):
                best = model(input_ids=ids, use_cache=False).logits[0, -1, :TOKENS].argmax()
                ids = torch.cat([ids, best[None, None]], dim=1)
        assert ids[0, len(prompt) :].tolist() == answer.token_ids.tolist()
    ends = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))["eos_token_id"]
    assert ends in (TOKENS - 1, [TOKENS - 1])
