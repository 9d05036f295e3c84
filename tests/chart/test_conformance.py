"""kubeconform, strict: the API servers of the oldest and the newest version would know every field of every object."""

import subprocess
from pathlib import Path

import pytest
import yaml
from tests.chart.matrix import ALL, rendering
from tests.chart.rendering import CHART, SECONDS, render
from tests.chart.schemas import write_schemas
from tests.cluster.programs import KUBECONFORM, KUBERNETES, require

OLDEST = "v1.30.14"
"""The last patch of the oldest version that Chart.yaml allows."""


@pytest.fixture(scope="module")
def location(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_schemas(tmp_path_factory.mktemp("schemas"))


def conform(path: Path, location: str, kubernetes: str = KUBERNETES) -> tuple[int, str]:
    options = ("-strict", "-summary", f"-schema-location={location}")
    command = [str(require(KUBECONFORM)), *options, f"-kubernetes-version={kubernetes.removeprefix('v')}", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("kubernetes", [OLDEST, KUBERNETES])
def test_objects_conform(kubernetes: str, tmp_path: Path) -> None:
    """All renderings at once: the schemas are read once."""
    objects = tmp_path / "objects"
    objects.mkdir()
    for name in ALL:
        (objects / f"{name}.yaml").write_text(rendering(name).text)
    code, said = conform(objects, write_schemas(tmp_path / "schemas", kubernetes), kubernetes)
    assert code == 0, said
    assert f"{sum(len(rendering(name).objects) for name in ALL)} resources" in said
    assert "Skipped: 0" in said


def test_the_oldest_version_is_the_one_of_the_chart() -> None:
    wanted = yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"]
    assert wanted == f">={OLDEST.removeprefix('v').rpartition('.')[0]}.0-0"


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
