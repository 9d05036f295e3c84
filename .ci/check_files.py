"""Fails on files that are too long for one job, and on an `__init__.py` that would hide the other import roots."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAX_LINES = 400
FORBIDDEN = ("lib/quatrain/__init__.py", "services/quatrain/__init__.py", "orchestrator/quatrain/__init__.py")


def main() -> int:
    """0 when all is well."""
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, check=True, capture_output=True, text=True)
    problems = []
    for name in listed.stdout.split():
        if name.startswith("lib/quatrain/v1/") or not (ROOT / name).exists():
            continue
        lines = len((ROOT / name).read_text(encoding="utf-8").splitlines())
        if lines > MAX_LINES:
            problems.append(f"{name}: {lines} lines, at most {MAX_LINES}: what would a reader split off?")
    problems += [f"{name} hides the other two import roots" for name in FORBIDDEN if (ROOT / name).exists()]
    print("\n".join(problems) or "files: none too long")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
