"""Fake nodes with GPUs (kwok): a pod that is scheduled there counts as running at once, but nothing runs."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster.api import Cluster, is_ready
from tests.cluster.control_plane import Site
from tests.cluster.programs import KWOK, module_folder
from tests.servers.processes import running

STAGES = ("node/fast", "node/heartbeat", "pod/fast")
LABEL = "quatrain.test/fake-node"
# A pod that is a test of a release ends well at once: its object is what the API server and the quotas judge here.
TEST_POD_STAGE = """
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: test-pod-succeeds}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
    - {key: .metadata.deletionTimestamp, operator: DoesNotExist}
    - {key: .status.phase, operator: In, values: [Running]}
    - {key: '.metadata.annotations["helm.sh/hook"]', operator: In, values: [test]}
  next:
    statusTemplate: |
      phase: Succeeded
"""
# A node says that a pod has ended before it is gone, and who holds the pod by a finalizer (Kueue) waits for that.
HELD_POD_STAGE = """
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: held-pod-ends}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  weight: 1
  selector:
    matchExpressions:
    - {key: .metadata.deletionTimestamp, operator: Exists}
    - {key: .metadata.finalizers, operator: Exists}
    - {key: .status.phase, operator: In, values: [Running]}
  next:
    statusTemplate: |
      phase: Succeeded
"""


@contextmanager
def fake_nodes(site: Site, cluster: Cluster, count: int = 4, gpus: int = 8) -> Iterator[list[str]]:
    """Make nodes named `gpu-0` and so on; yield their names."""
    names = [f"gpu-{number}" for number in range(count)]
    stages = site.subfolder("kwok") / "stages.yaml"
    stages.write_text(_stages())
    cluster.apply(*(_node(name, gpus) for name in names))
    options = (f"--kubeconfig={site.kubeconfig}", f"--manage-nodes-with-label-selector={LABEL}", f"--config={stages}")
    with running(site.start(KWOK, *options, port="--server-address=127.0.0.1:")):
        cluster.wait("fake nodes", lambda: all(is_ready(cluster.get("node", name)) for name in names))
        yield names


def _node(name: str, gpus: int) -> dict[str, object]:
    room = {"cpu": "64", "memory": "512Gi", "pods": "110", "ephemeral-storage": "2Ti", "nvidia.com/gpu": str(gpus)}
    labels = {
        LABEL: "true",
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": name,
        "topology.kubernetes.io/zone": f"zone-{name[-1]}",
        "nvidia.com/gpu.present": "true",
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": {"kwok.x-k8s.io/node": "fake"}},
        "status": {"allocatable": room, "capacity": room},
    }


def _stages() -> str:
    folder = module_folder(f"sigs.k8s.io/kwok@{KWOK.version}") / "kustomize" / "stage"
    files = [file for stage in STAGES for file in sorted((folder / stage).glob("*.yaml"))]
    texts = [file.read_text() for file in files if file.name != "kustomization.yaml"]
    return "\n---\n".join([*texts, TEST_POD_STAGE, HELD_POD_STAGE])
