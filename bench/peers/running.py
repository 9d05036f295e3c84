"""Runs TRL's PPO on a case, where its environment is there: `python -m bench.peers.install` makes it."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from quatrain.errors import RunFailed

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / ".venv-peer"
SCRIPT = Path(__file__).with_name("trl_ppo.py")
SECONDS_A_STEP = 600.0


@dataclass(frozen=True)
class PeerRun:
    """The numbers that the peer's script prints of one run."""

    peer: str
    case: str
    step_s: float
    step_cpu_s: float
    real_tokens_per_s: float
    real_tokens_per_cpu_s: float
    real_tokens: list[int]
    steps_s: list[float]


def peer_python() -> Path | None:
    """Return the peer's interpreter: $BENCH_PEER_PYTHON, else that of .venv-peer; None when there is neither."""
    named = os.environ.get("BENCH_PEER_PYTHON")
    path = Path(named) if named else ENVIRONMENT / "bin" / "python"
    return path if path.exists() else None


def run_peer(python: Path, case: str, steps: int, threads: int) -> PeerRun:
    """Run the peer's script and return what it prints. Raises RunFailed with the end of its output when it fails."""
    command = [str(python), str(SCRIPT), case, "--steps", str(steps), "--threads", str(threads)]
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": str(threads),
        # Our stack sets this, too: on a busy machine spinning threads would slow the peer down more.
        "OMP_WAIT_POLICY": "passive",
    }
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=SECONDS_A_STEP * steps, check=False
    )
    if done.returncode != 0:
        raise RunFailed(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return PeerRun(**json.loads(done.stdout.strip().splitlines()[-1]))
