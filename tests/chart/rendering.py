"""Renders the chart with Helm and offers the objects."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml
from tests.cluster.programs import HELM, KUBERNETES, require

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "quatrain"
SERVICES = ("orchestrator", "rollout", "generation", "reward", "reference", "learner")
WORKLOADS = ("Deployment", "StatefulSet")
# What the cluster offers beyond Kubernetes itself.
OPERATORS = (
    *("keda.sh/v1alpha1", "monitoring.coreos.com/v1", "cert-manager.io/v1", "kueue.x-k8s.io/v1beta1"),
    "leaderworkerset.x-k8s.io/v1",
)
FIRST_OF_GROUP = {"leaderworkerset.sigs.k8s.io/worker-index": "0"}
SECONDS = 300.0

Object = dict[str, Any]


class Refused(Exception):
    """Helm did not render; the message is its own."""


@dataclass(frozen=True)
class Pod:
    """The pod of a workload, or of a test."""

    owner: Object
    labels: dict[str, str]
    annotations: dict[str, str]
    spec: Object

    @property
    def name(self) -> str:
        return str(self.owner["metadata"]["name"])

    @property
    def component(self) -> str:
        return self.labels["app.kubernetes.io/component"]

    @property
    def containers(self) -> list[Object]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    @property
    def main(self) -> Object:
        (container,) = self.spec["containers"]
        return dict(container)


@dataclass(frozen=True)
class Rendered:
    """All objects of a release."""

    text: str

    @cached_property
    def objects(self) -> list[Object]:
        return [found for found in yaml.safe_load_all(self.text) if found]

    def of(self, *kinds: str) -> list[Object]:
        return [found for found in self.objects if found["kind"] in kinds]

    def get(self, kind: str, name: str) -> Object:
        (found,) = [each for each in self.of(kind) if each["metadata"]["name"] == name]
        return found

    @property
    def names(self) -> set[tuple[str, str]]:
        return {(each["kind"], each["metadata"]["name"]) for each in self.objects}

    @cached_property
    def pods(self) -> list[Pod]:
        return list(self._pods())

    def pod(self, component: str) -> Pod:
        (found,) = [pod for pod in self.pods if pod.component == component]
        return found

    def config(self, component: str) -> Object:
        """The configuration file of a service."""
        name = next(v for v in self.pod(component).spec["volumes"] if v["name"] == "config")["configMap"]["name"]
        return dict(yaml.safe_load(self.get("ConfigMap", name)["data"]["quatrain.yaml"]))

    def _pods(self) -> Iterator[Pod]:
        for owner in self.of(*WORKLOADS, "LeaderWorkerSet", "Pod"):
            template, more = owner, {}
            if owner["kind"] == "LeaderWorkerSet":  # the first pod of a group
                template, more = owner["spec"]["leaderWorkerTemplate"]["workerTemplate"], FIRST_OF_GROUP
            elif owner["kind"] != "Pod":
                template = owner["spec"]["template"]
            meta = template["metadata"]
            yield Pod(owner, meta["labels"] | more, meta.get("annotations", {}), template["spec"])


def helm(*arguments: str, given: str | None = None) -> str:
    """Helm's output. Raises Refused."""
    command = [str(require(HELM)), *arguments]
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode != 0:
        raise Refused(done.stderr + done.stdout)
    return done.stdout


def render(
    values: Object | None = None,
    *,
    files: Sequence[str] = (),
    release: str = "quatrain",
    namespace: str = "default",
    operators: Sequence[str] = OPERATORS,
) -> Rendered:
    """The chart with values files of its own and further values. Raises Refused."""
    return _render(json.dumps(values or {}), tuple(files), release, namespace, tuple(operators))


@cache
def _render(values: str, files: tuple[str, ...], release: str, namespace: str, operators: tuple[str, ...]) -> Rendered:
    chosen = [f"--values={CHART / name}" for name in files]
    offered = [f"--api-versions={name}" for name in operators]
    where = (f"--namespace={namespace}", f"--kube-version={KUBERNETES}")
    return Rendered(helm("template", release, str(CHART), *where, *chosen, "--values=-", *offered, given=values))


def generator() -> Any:
    """The module that makes the schema and the README."""
    folder = str(ROOT / "helm")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    import generate  # type: ignore[import-not-found]

    return generate
