"""kubeconform, strict: the API server of this version of Kubernetes would know every field of every object."""

import subprocess
from pathlib import Path

import pytest
from tests.chart.matrix import ALL, rendering
from tests.chart.rendering import SECONDS, render
from tests.chart.schemas import write_schemas
from tests.cluster.programs import KUBECONFORM, KUBERNETES, require


@pytest.fixture(scope="module")
def location(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_schemas(tmp_path_factory.mktemp("schemas"))


def conform(path: Path, location: str) -> tuple[int, str]:
    options = ("-strict", "-summary", f"-schema-location={location}")
    command = [str(require(KUBECONFORM)), *options, f"-kubernetes-version={KUBERNETES.removeprefix('v')}", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    return done.returncode, done.stdout + done.stderr


def test_objects_conform(location: str, tmp_path: Path) -> None:
    """All renderings at once: the schemas are read once."""
    for name in ALL:
        (tmp_path / f"{name}.yaml").write_text(rendering(name).text)
    code, said = conform(tmp_path, location)
    assert code == 0, said
    assert f"{sum(len(rendering(name).objects) for name in ALL)} resources" in said
    assert "Skipped: 0" in said


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("automountServiceAccountToken: false", "automountToken: false"),
        ("podManagementPolicy: Parallel", "podManagementPolicy: 3"),
        ("lagCount:", "lagCounts: {a: b}\n        lagCount:"),
        ("failureThreshold: 3, replicas", "failures: 3, replicas"),
    ],
)
def test_what_does_not_conform_is_found(right: str, wrong: str, location: str, tmp_path: Path) -> None:
    text = render({"generation": {"autoscaling": {"kind": "keda"}}}).text
    assert right in text
    (tmp_path / "wrong.yaml").write_text(text.replace(right, wrong))
    code, said = conform(tmp_path, location)
    assert code != 0, said
