"""What the client and the orchestrator import must not pull torch in."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("package", ["quatrain.jobspec", "quatrain.text", "quatrain.data"])
def test_no_torch_and_no_transformers(package: str) -> None:
    code = f"import sys, {package}; print([m for m in ('torch', 'transformers') if m in sys.modules])"

    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert done.stdout.strip() == "[]"
