"""The matrix-product peak of this machine now: `python -m bench.peak THREADS` prints float32 operations a second.

A process of its own, so that neither torch's settings nor the memory of the benchmark touch it. The shapes are those of
the measured models: 6,144 tokens through a layer of 256 x 704.
"""

import subprocess
import sys
import time

ROWS, WIDTH, COLUMNS = 6144, 256, 704
REPEATS, PRODUCTS = 30, 10


def measured_peak(threads: int) -> float:
    """Operations a second, measured in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.peak", str(threads)], capture_output=True, text=True, check=True, timeout=300
    )
    return float(done.stdout.split()[-1])


def main(threads: int) -> float:
    """The best of many repeats: what the machine can do when nothing disturbs it."""
    import torch

    torch.set_num_threads(threads)
    left, right = torch.randn(ROWS, WIDTH), torch.randn(WIDTH, COLUMNS)
    best = float("inf")
    for _ in range(REPEATS):
        started = time.perf_counter()
        for _ in range(PRODUCTS):
            left @ right
        best = min(best, time.perf_counter() - started)
    return 2.0 * ROWS * WIDTH * COLUMNS * PRODUCTS / best


if __name__ == "__main__":
    print(main(int(sys.argv[1])))
