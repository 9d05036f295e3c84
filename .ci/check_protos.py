"""Fails when the stubs differ from the protos (`make proto` mends), a field has no comment, or buf objects."""

import filecmp
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIELD = re.compile(r"^\s*(?:repeated |optional |map<[^>]+> )?[\w.]*\s*\w+ = \d+;|^\s*[A-Z][A-Z0-9_]+ = \d+;")


def drifted() -> list[str]:
    """Stubs that are missing or different."""
    protos = sorted(str(path.relative_to(ROOT / "proto")) for path in (ROOT / "proto").rglob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        outputs = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
        command = [sys.executable, "-m", "grpc_tools.protoc", "-I", "proto", *outputs, *protos]
        subprocess.run(command, cwd=ROOT, check=True)
        fresh = sorted(path.relative_to(folder) for path in Path(folder).rglob("*") if path.is_file())
        return [
            str(path)
            for path in fresh
            if not (ROOT / "lib" / path).exists()
            or not filecmp.cmp(Path(folder) / path, ROOT / "lib" / path, shallow=False)
        ]


def uncommented() -> list[str]:
    """Fields and enum values without a comment right above them."""
    found = []
    for path in sorted((ROOT / "proto").rglob("*.proto")):
        lines = path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines[1:], start=2):
            if FIELD.match(line) and not lines[number - 2].strip().startswith("//"):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    return found


def objections() -> list[str]:
    """Return what buf's standard rules say."""
    # What it says on stderr is shown: a first run builds buf for minutes.
    finding = subprocess.run(
        [sys.executable, "-m", "tests.servers.binaries", "buf"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    command = [finding.stdout.strip(), "lint", "proto"]
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True).stdout.splitlines()


def main() -> int:
    """0 when all is well."""
    problems = [f"drifted from its proto: lib/{name} (run make proto)" for name in drifted()]
    problems += [f"no comment: {place}" for place in uncommented()]
    problems += [f"buf: {line}" for line in objections()]
    print("\n".join(problems) or "protos: stubs are current, every field is commented, buf has no objection")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
