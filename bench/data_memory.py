"""Memory that a data set takes while it is validated and prepared, by the size of its file.

    python -m bench.data_memory [--mebibytes 50 200 800] [--model FOLDER]

Each size is a process of its own: JSON Lines of preference pairs, read, split by prompt and prepared as the
orchestrator does it. Printed are the peak resident memory above the idle process, and the slope between the sizes.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from quatrain.data import (
    DataFiles,
    PairsWriter,
    fingerprint,
    held_out_prompts,
    open_pairs,
)
from quatrain.text import Tokenizer

MIB = 2**20
WORDS = ("the", "a", "parcel", "is", "late", "where", "my", "refund", "door", "blue", "seven", "orders", "please")
ROW_WORDS = 120


def write_rows(path: Path, size: int) -> None:
    """Write pairs of about a kilobyte each until the file has its size."""
    draw = random.Random(size)
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < size:
            texts = [" ".join(draw.choices(WORDS, k=ROW_WORDS // 3)) for _ in range(3)]
            row = {"prompt": texts[0], "chosen": f" {texts[1]}", "rejected": f" {texts[2]}"}
            file.write(json.dumps(row) + "\n")


def prepare(path: Path, model: Path) -> int:
    """Prepare the file and return the peak of the resident memory above that before, in bytes."""
    tokenizer = Tokenizer.load(model)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    reading = open_pairs(DataFiles.of(path))
    reading.go_through()
    held_out = held_out_prompts(reading.seen.prompts, 0.05, 1)
    with tempfile.TemporaryDirectory() as scratch:
        train, rest = (PairsWriter(Path(scratch) / name, tokenizer, 1024) for name in ("train", "held-out"))
        for pair in reading:
            (rest if fingerprint(pair.prompt) in held_out else train).add(pair)
        train.close()
        rest.close()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before


def measure(sizes: Sequence[int], model: Path) -> None:
    """Print a line for each size in MiB, and the slope between the smallest and the largest."""
    peaks = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "pairs.jsonl"
            write_rows(path, size * MIB)
            began = time.monotonic()
            command = [sys.executable, "-m", "bench.data_memory", "--prepare", str(path), "--model", str(model)]
            peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        peaks.append(peak / MIB)
        print(f"{size:6} MiB of pairs: {peak / MIB:7.0f} MiB above idle, {time.monotonic() - began:.0f} s", flush=True)
    if len(sizes) > 1:
        slope = (peaks[-1] - peaks[0]) / (sizes[-1] - sizes[0])
        print(f"slope: {slope:.3f} MiB a MiB of the file")


def main() -> None:
    """Measure the sizes, or prepare one file and print its peak."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mebibytes", type=int, nargs="+", default=[50, 200, 800])
    parser.add_argument("--model", type=Path, default=Path("examples/courteous-replies/base-model"))
    parser.add_argument("--prepare", type=Path)
    arguments = parser.parse_args()
    if arguments.prepare is not None:
        print(prepare(arguments.prepare, arguments.model))
    else:
        measure(arguments.mebibytes, arguments.model)


if __name__ == "__main__":
    main()
