"""`python -m tests.load [CASE ...] [--json FILE]`: measures and prints one JSON object; progress goes to stderr.

Ends with an error when a job does; a target that is missed is said and is no error, since machines differ.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.load import crowd, largest, soak, throughput

CASES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "throughput": throughput.throughput,
    "scaling": throughput.scaling,
    "watchers": crowd.watchers,
    "jobs": crowd.many_jobs,
    "largest": largest.largest,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the named cases, all but the soak without a name."""
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("cases", nargs="*", choices=[*CASES, "soak", []], help="all but soak without one")
    parser.add_argument("--steps", type=int, default=soak.STEPS, help="steps of the soak")
    parser.add_argument("--json", type=Path, help="also write the result here")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that its processes end with it
    cases = CASES | {"soak": lambda home: soak.soak(home, steps=options.steps)}
    result: dict[str, Any] = {"machine": _machine(), "cases": {}}
    for name in options.cases or list(CASES):
        with tempfile.TemporaryDirectory(prefix="quatrain-load-") as home:
            print(f"{name} ...", file=sys.stderr)
            result["cases"][name] = cases[name](Path(home))
            print(json.dumps(result["cases"][name]), file=sys.stderr)
    text = json.dumps(result, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")
    return 0


def _machine() -> dict[str, Any]:
    commit = subprocess.run(["git", "describe", "--always", "--dirty=+"], capture_output=True, text=True, check=False)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load_before": [round(value, 2) for value in os.getloadavg()],
    }


if __name__ == "__main__":
    sys.exit(main())
