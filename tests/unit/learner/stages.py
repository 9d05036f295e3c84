"""Tiny stages: models of 2 layers and 32 wide, sealed batches and prepared tables made by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from tests.unit.models.tiny_models import VOCABULARY, save_tiny_model

from quatrain.batches import BatchRow, write_batch
from quatrain.batches.columns import write_parquet
from quatrain.data.tables import IDS, PAIRS_SCHEMA, SFT_SCHEMA
from quatrain.digests import canonical_json
from quatrain.jobspec.sections import PpoSpec
from quatrain.learner.backends import Inputs
from quatrain.learner.backends.ppo.trainer import PpoTrainer
from quatrain.learner.backends.torch_backend import read_section
from quatrain.learner.requests import OpenRequest, Token
from quatrain.refs import ModelRef
from quatrain.stages import PPO, Stage

Ints = npt.NDArray[np.int32]
TOTAL_STEPS = 6

METRICS = {
    "reward/score_mean", "reward/score_std", "reward/helpful_mean", "reward/kl_penalty", "reward/total",
    "reward/length_corr", "reward/length_explained", "reward/refused", "reward/skipped",
    "kl/ref_seq", "kl/ref_seq_se", "kl/ref_token", "kl/ref_k3_token", "kl/coef",
    "policy/entropy", "policy/clip_fraction", "policy/clip_fraction_low", "policy/clip_fraction_high",
    "policy/clip_fraction_first", "policy/ratio_dev_first", "policy/ratio_mean", "policy/ratio_min",
    "policy/ratio_max", "policy/approx_kl", "policy/loss", "loss/total",
    "value/loss", "value/clip_fraction", "value/explained_variance",
    "optim/policy_lr", "optim/value_lr", "optim/policy_grad_norm", "optim/value_grad_norm", "optim/skipped",
    "completions/length_mean", "completions/length_min", "completions/length_max", "completions/length_p95",
    "completions/eos_rate", "completions/distinct_2", "completions/duplicate_rate",
    "sampler/mismatch_mean", "sampler/mismatch_max", "sampler/ess", "sampler/staleness",
    "throughput/train_tokens_per_s",
}  # fmt: skip
"""Of every PPO step whose rows have the reward term `helpful`."""


def never() -> None:
    """A check that never objects."""


def ids(generator: np.random.Generator, count: int) -> Ints:
    return generator.integers(0, VOCABULARY, count).astype(np.int32)


def rollout(number: int, *, version: int = 0, seed: int = 0) -> BatchRow:
    """A rollout with 2 to 9 completion tokens and a score; the logprobs are about those of a random model."""
    generator = np.random.default_rng([seed, number])
    length = int(generator.integers(2, 10))
    stopped = bool(generator.integers(0, 2))
    return BatchRow(
        rollout_id=f"r{number}",
        prompt_index=number,
        sample_index=0,
        seed=number,
        policy_version=version,
        policy_digest="d",
        status="rollout",
        prompt_ids=ids(generator, int(generator.integers(1, 8))),
        completion_ids=ids(generator, length),
        logprobs=generator.normal(-3.5, 0.1, length).astype(np.float32),
        ref_logprobs=generator.normal(-3.5, 0.1, length).astype(np.float32),
        finish_reason="stop" if stopped else "length",
        score=float(generator.normal()),
        terms='{"helpful":0.5}',
    )


def sealed(step: int, *, rows: int = 10, staleness: int = 0) -> bytes:
    """The sealed batch of PPO step `step`."""
    version = max(0, step - 1 - staleness)
    return write_batch([rollout(number, version=version, seed=step) for number in range(rows)])


def ppo_settings(**sections: Any) -> dict[str, Any]:
    """A resolved ppo section with learning rates at which a few steps change something."""
    optimizer = {"policy_lr": 1e-3, "value_lr": 1e-3, "epochs": 2, "microbatch_tokens": 40}
    optimizer |= sections.pop("optimizer", {})
    return {"prompts": "sha256:0", "steps": TOTAL_STEPS, "optimizer": optimizer, **sections}


def stage_request(stage: Stage, settings: dict[str, Any], **changes: Any) -> OpenRequest:
    request = OpenRequest(
        token=Token("job-1", 1, 1),
        stage=stage,
        config_json=canonical_json(settings).decode(),
        model=ModelRef("store:models/m", "0" * 64),
        total_steps=TOTAL_STEPS,
        seed=3,
    )
    return replace(request, **changes)


def ppo_trainer(folder: Path, settings: dict[str, Any] | None = None, **changes: Any) -> PpoTrainer:
    """A PPO trainer on a tiny policy saved under `folder`, its value model from a tiny reward model."""
    if not (folder / "policy").exists():
        save_tiny_model(folder / "policy")
        save_tiny_model(folder / "reward", "reward", seed=1)
    torch.set_num_threads(1)
    request = stage_request(PPO, settings or ppo_settings(), **changes)
    inputs = Inputs(folder / "policy", folder / "reward")
    return PpoTrainer(request, read_section(PpoSpec, request.config_json), inputs, torch.device("cpu"))


def weights(trainer: Any, folder: Path) -> dict[str, torch.Tensor]:
    """What `save` writes, all tensors by file and name."""
    from safetensors.torch import load_file

    folder.mkdir(parents=True, exist_ok=True)
    trainer.save(folder)
    return {
        f"{path.stem}/{name}": tensor
        for path in sorted(folder.glob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def policy_weights(trainer: Any, folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in weights(trainer, folder).items() if name.startswith("policy/")}


def sft_table(rows: int = 7) -> bytes:
    generator = np.random.default_rng(5)
    columns = [
        pa.array([ids(generator, int(generator.integers(1, 6))) for _ in range(rows)], IDS),
        pa.array([ids(generator, int(generator.integers(1, 9))) for _ in range(rows)], IDS),
        pa.array(range(rows), pa.int64()),
    ]
    return write_parquet(columns, SFT_SCHEMA)


def pair_table(rows: int = 7, seed: int = 6) -> bytes:
    generator = np.random.default_rng(seed)
    columns = [
        pa.array([ids(generator, int(generator.integers(4, 12))) for _ in range(rows)], IDS),
        pa.array([ids(generator, int(generator.integers(4, 12))) for _ in range(rows)], IDS),
        pa.array([2] * rows, pa.int32()),
        pa.array([None if row % 2 else 0.5 for row in range(rows)], pa.float64()),
        pa.array(range(rows), pa.int64()),
    ]
    return write_parquet(columns, PAIRS_SCHEMA)
