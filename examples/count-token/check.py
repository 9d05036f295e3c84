"""Runs the count-token job through the real services and compares what it learnt with the exact optimum.

    python check.py --seeds 1 2 3

Starts the local stack if none runs (and leaves it running), submits one job a seed, downloads each exported model and
enumerates all 6^4 completions: no sampling, so no sampling error. Exit code 1 when a seed is outside the tolerances.
"""

import argparse
import itertools
import math
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from make_base import SYMBOLS, make
from reward import count_zeros
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM

from quatrain.client import Client
from quatrain.local.home import state_folder
from quatrain.local.stack import up

HERE = Path(__file__).resolve().parent
LENGTH = 4
BETA = 0.5
PROMPT = (2, 3)
JOB_SECONDS = 600.0
MAX_REWARD, MAX_KL, MAX_GAP = 0.05, 0.05, 0.005


@dataclass(frozen=True)
class Judgement:
    """What a policy achieves, exactly: expected reward, KL to the uniform reference in nats, E r - beta KL."""

    reward: float
    kl: float

    @property
    def objective(self) -> float:
        """What PPO with a KL penalty maximises."""
        return self.reward - BETA * self.kl


def optimum() -> Judgement:
    """The best policy draws symbol 0 with p = e^(1/beta) / (e^(1/beta) + V - 1), the others alike, at each place."""
    p = math.exp(1 / BETA) / (math.exp(1 / BETA) + SYMBOLS - 1)
    kl = math.log(SYMBOLS) + p * math.log(p) + (1 - p) * math.log((1 - p) / (SYMBOLS - 1))
    return Judgement(LENGTH * p, LENGTH * kl)


@torch.inference_mode()
def judge(folder: Path) -> Judgement:
    """Enumerates every completion of the model in the folder, in float64."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    completions = list(itertools.product(range(SYMBOLS), repeat=LENGTH))
    ids_NL = torch.tensor(completions)
    inputs = torch.cat([torch.tensor(PROMPT).expand(len(ids_NL), -1), ids_NL], dim=1)
    logits_NLV = model(input_ids=inputs).logits[:, len(PROMPT) - 1 : -1]
    logprobs_N = torch.log_softmax(logits_NLV, -1).gather(-1, ids_NL[..., None]).sum(dim=(1, 2))
    rewards_N = torch.tensor(count_zeros([list(ids) for ids in completions]), dtype=torch.float64)
    probabilities_N = logprobs_N.exp()
    kl = (probabilities_N * (logprobs_N + LENGTH * math.log(SYMBOLS))).sum().item()
    return Judgement((probabilities_N * rewards_N).sum().item(), kl)


def run_job(client: Client, seed: int) -> Path | None:
    """Runs the job with a seed; the folder of its model, None when the job did not succeed."""
    job = client.submit(HERE / "spec.yaml", overrides=[f"seed={seed}"])
    finished = client.wait(job.id, timeout=JOB_SECONDS)
    if finished.state != "SUCCEEDED":
        print(f"job {job.id} (seed {seed}): {finished.state} {finished.error or ''}", file=sys.stderr)
        return None
    folder = Path(tempfile.mkdtemp(prefix="count-token-"))
    client.download(job.id, folder)
    return folder


def within(found: Judgement, best: Judgement) -> bool:
    """Whether a result is as close to the optimum as it must be."""
    return (
        abs(found.reward - best.reward) <= MAX_REWARD
        and abs(found.kl - best.kl) <= MAX_KL
        and best.objective - found.objective <= MAX_GAP
    )


def main() -> int:
    """0 when every seed reaches the optimum."""
    parser = argparse.ArgumentParser(description="Compares what PPO learns with the exact optimum.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    seeds: list[int] = parser.parse_args().seeds
    if not (HERE / "base-model" / "model.safetensors").exists():
        make(HERE / "base-model")
    up(state_folder())
    best, good = optimum(), True
    table = Table("policy", "E r", "KL", "J", "gap in J", "seconds", "", box=None)
    table.add_row("optimum", f"{best.reward:.6f}", f"{best.kl:.6f}", f"{best.objective:.6f}", "", "", "")
    with Client() as client:
        for seed in seeds:
            started = time.monotonic()
            folder = run_job(client, seed)
            if folder is None:
                return 1
            found = judge(folder)
            numbers = (found.reward, found.kl, found.objective, best.objective - found.objective)
            verdict = "ok" if within(found, best) else "outside the tolerances"
            good &= verdict == "ok"
            seconds = f"{time.monotonic() - started:.0f}"
            table.add_row(f"seed {seed}", *(f"{number:.6f}" for number in numbers), seconds, verdict)
    Console(width=100).print(table)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
