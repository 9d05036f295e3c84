"""TRL 1.12.0's PPOTrainer on a case, on the CPU. Runs in the peer's environment and prints one JSON line.

    .venv-peer/bin/python bench/peers/trl_ppo.py uniform --steps 5

Real tokens are completion tokens up to and including the first end token, counted once a step whatever the epochs. The
numbers of the two cases are those of bench/cases.py, which this environment cannot import.
"""

import argparse
import json
import os
import random
import tempfile
import time
from itertools import pairwise
from statistics import median
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
import trl.experimental.ppo.ppo_trainer as ppo_module
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2ForSequenceClassification,
    TrainerCallback,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer

BATCH, MICROBATCH, EPOCHS = 64, 16, 4
# vocabulary, end id, padding id, shortest and longest prompt, new tokens
CASES = {"uniform": (512, 257, 256, 32, 32, 64), "ragged": (64, 63, 62, 8, 64, 128)}


class Clock(TrainerCallback):
    """The times at which steps ended, and the real tokens that were made in each."""

    def __init__(self) -> None:
        self.stamps: list[float] = []
        self.cpu: list[float] = []
        self.tokens = [0]

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.stamp()
        self.tokens.append(0)

    def stamp(self) -> None:
        """Note wall time and CPU time of all threads, now."""
        self.stamps.append(time.perf_counter())
        self.cpu.append(time.process_time())

    def count(self, truncate: Any) -> Any:
        """Return TRL's truncation after the end token, with its real tokens counted."""

        def counted(stop: int, pad: int, responses: torch.Tensor) -> torch.Tensor:
            cut: torch.Tensor = truncate(stop, pad, responses)
            self.tokens[-1] += int((cut != pad).sum())
            return cut

        return counted


def make_tokenizer(vocabulary: int, eos: int, pad: int) -> Any:
    """Return a tokenizer with one word for each id."""
    backend = Tokenizer(models.WordLevel(vocab={f"t{i}": i for i in range(vocabulary)}, unk_token="t0"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.Fuse()
    fast: Any = PreTrainedTokenizerFast
    return fast(tokenizer_object=backend, eos_token=f"t{eos}", pad_token=f"t{pad}", padding_side="left")


def make_config(vocabulary: int, eos: int, pad: int) -> Qwen2Config:
    """Return a config with the shape of bench/models.py."""
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        eos_token_id=eos,
        pad_token_id=pad,
        bos_token_id=None,
    )
    config.num_labels = 1
    return config


def make_trainer(case: str, steps: int, clock: Clock) -> PPOTrainer:
    """Return the trainer with models, data and settings; the microbatch is the one that is fastest for the peer."""
    vocabulary, eos, pad, shortest, longest, new_tokens = CASES[case]
    draw = random.Random(f"{case}:1")
    rows = [[draw.randrange(pad) for _ in range(draw.randint(shortest, longest))] for _ in range(BATCH * (steps + 1))]
    data = Dataset.from_dict({"input_ids": rows})
    config = make_config(vocabulary, eos, pad)
    torch.manual_seed(0)
    policy, reference = Qwen2ForCausalLM(config), Qwen2ForCausalLM(config)
    classifier: Any = Qwen2ForSequenceClassification
    reference.load_state_dict(policy.state_dict())
    settings = PPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=MICROBATCH,
        gradient_accumulation_steps=BATCH // MICROBATCH,
        num_ppo_epochs=EPOCHS,
        num_mini_batches=1,
        total_episodes=BATCH * steps,
        response_length=new_tokens,
        stop_token="eos",
        temperature=1.0,
        bf16=False,
        gradient_checkpointing=False,
        num_sample_generations=0,
        report_to="none",
        logging_steps=1,
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    return PPOTrainer(
        args=settings,
        processing_class=make_tokenizer(vocabulary, eos, pad),
        model=policy,
        ref_model=reference,
        reward_model=classifier(config),
        value_model=classifier(config),
        train_dataset=data,
        eval_dataset=data.select(range(2)),
        callbacks=[clock],
    )


def main() -> None:
    """Train for some steps and print how long they took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=sorted(CASES))
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    clock = Clock()
    ppo_module.truncate_response = clock.count(ppo_module.truncate_response)
    trainer = make_trainer(arguments.case, arguments.steps, clock)
    clock.stamp()
    trainer.train()
    seconds = [after - before for before, after in pairwise(clock.stamps)]
    cpu = [after - before for before, after in pairwise(clock.cpu)]
    tokens = clock.tokens[: len(seconds)]
    result = {
        "peer": "trl-1.12.0",
        "case": arguments.case,
        "step_s": round(median(seconds), 2),
        "step_cpu_s": round(median(cpu), 2),
        "real_tokens_per_s": round(median(count / spent for count, spent in zip(tokens, seconds, strict=True))),
        "real_tokens_per_cpu_s": round(median(count / spent for count, spent in zip(tokens, cpu, strict=True))),
        "real_tokens": tokens,
        "steps_s": [round(spent, 2) for spent in seconds],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
