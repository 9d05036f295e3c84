"""The matrix-product peak of this machine now: `python -m bench.peak THREADS` prints float32 operations a second.

It runs in a process of its own, so that neither torch's settings nor the memory of the benchmark affect it. The shapes
are those of the measured models: 6,144 tokens through a layer of 256 x 704. It prints two numbers: the speed of torch's
own product, and that of the fastest product in torch, which on some processors is another library's.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

ROWS, WIDTH, COLUMNS = 6144, 256, 704
REPEATS, PRODUCTS = 30, 10


@dataclass(frozen=True)
class Peak:
    """Operations a second of `left @ right`, and of the faster of that and oneDNN's product."""

    torch: float
    fastest: float

    def best(self, other: "Peak") -> "Peak":
        """Return the higher of two measurements: a disturbance only makes one lower."""
        return Peak(max(self.torch, other.torch), max(self.fastest, other.fastest))


def measured_peak(threads: int) -> Peak:
    """Return the peak, measured in a process of its own."""
    command = [sys.executable, "-m", "bench.peak", str(threads)]
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300, env=environment)
    return Peak(**json.loads(done.stdout.strip().splitlines()[-1]))


def main(threads: int) -> dict[str, float]:
    """Return the best of many repeats: the machine's speed when nothing disturbs it."""
    import torch

    torch.set_num_threads(threads)
    left, right, weight = torch.randn(ROWS, WIDTH), torch.randn(WIDTH, COLUMNS), torch.randn(COLUMNS, WIDTH)
    plain = _best(lambda: left @ right)
    fastest = plain
    if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        product = torch.ops.mkldnn._linear_pointwise
        fastest = max(plain, _best(lambda: product(left, weight, None, "none", [], "")))
    return {"torch": plain, "fastest": fastest}


def _best(product: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(REPEATS):
        started = time.perf_counter()
        for _ in range(PRODUCTS):
            product()
        best = min(best, time.perf_counter() - started)
    return 2.0 * ROWS * WIDTH * COLUMNS * PRODUCTS / best


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]))))
