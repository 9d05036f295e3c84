"""Makes the peer's environment: `python -m bench.peers.install` (about 5 GiB on disk, a few minutes)."""

import subprocess
import sys
import venv
from importlib.metadata import version

from bench.peers.running import ENVIRONMENT

# The last release of TRL that has PPO.
PEER = "trl==1.12.0"
# The same numerics as ours, so that a comparison is about the rest of the program.
SHARED = ("torch", "transformers")
OTHERS = ("accelerate", "datasets")


def main() -> int:
    """Make the environment and return 0 when it is there."""
    venv.create(ENVIRONMENT, with_pip=True)
    (ENVIRONMENT / ".gitignore").write_text("*\n", encoding="utf-8")
    pinned = [f"{name}=={version(name).partition('+')[0]}" for name in SHARED]
    command = [str(ENVIRONMENT / "bin" / "python"), "-m", "pip", "install", "--quiet", PEER, *pinned, *OTHERS]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
