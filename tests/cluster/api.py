"""A running Kubernetes as the tests see it: kubectl and helm, their answers as objects, waiting with a deadline."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from tests.cluster.programs import HELM, KUBECTL, built

COMMAND_DEADLINE = 300.0
POLL = 0.25

Manifest = dict[str, Any]


def is_ready(found: Manifest) -> bool:
    """Whether a node or a pod says that it is ready."""
    return holds(found, "Ready")


def holds(found: Manifest, condition: str) -> bool:
    """Whether an object says of a condition that it holds; a new one may say nothing at all."""
    said = found.get("status", {}).get("conditions") or []
    return any(one["type"] == condition and one["status"] == "True" for one in said)


@dataclass(frozen=True)
class Outcome:
    """What a command said."""

    code: int
    output: str
    errors: str


@dataclass(frozen=True)
class Cluster:
    """An API server. `enter` goes before each command that must run in the cluster's network namespace."""

    kubeconfig: Path
    enter: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *command: str, stdin: str | None = None, deadline: float = COMMAND_DEADLINE) -> Outcome:
        """Any program that reads KUBECONFIG."""
        home = str(self.kubeconfig.parent)
        env = {**os.environ, "KUBECONFIG": str(self.kubeconfig), "HELM_CACHE_HOME": home, **self.environment}
        done = subprocess.run(
            [*self.enter, *command], env=env, input=stdin, capture_output=True, text=True, timeout=deadline, check=False
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Raises AssertionError with kubectl's words when it fails."""
        done = self.run(str(built(KUBECTL)), *arguments, stdin=stdin)
        assert done.code == 0, f"kubectl {' '.join(arguments)}: {done.errors}"
        return done.output

    def try_helm(self, *arguments: str, deadline: float = COMMAND_DEADLINE) -> Outcome:
        """For calls that may be refused."""
        return self.run(str(built(HELM)), *arguments, deadline=deadline)

    def apply(self, *manifests: Manifest, namespace: str = "default") -> None:
        """Creates or changes objects, by server-side apply, which takes large definitions too."""
        text = yaml.safe_dump_all(manifests)
        self.kubectl("apply", "--server-side", "--force-conflicts", "-n", namespace, "-f", "-", stdin=text)

    def get(self, kind: str, name: str, namespace: str = "default") -> Manifest:
        """One object, which must be there."""
        found: Manifest = json.loads(self.kubectl("get", kind, name, "-n", namespace, "-o", "json"))
        return found

    def objects(self, kind: str, namespace: str = "default", selector: str = "") -> list[Manifest]:
        """The objects of a kind."""
        text = self.kubectl("get", kind, "-n", namespace, "-l", selector, "-o", "json")
        items: list[Manifest] = json.loads(text)["items"]
        return items

    def names(self, kind: str, namespace: str = "default", selector: str = "") -> list[str]:
        """Their names, sorted."""
        return sorted(item["metadata"]["name"] for item in self.objects(kind, namespace, selector))

    def namespace(self, name: str, *, pod_security: str = "restricted") -> str:
        """Makes a namespace that enforces a Pod Security level; returns its name."""
        labels = {"pod-security.kubernetes.io/enforce": pod_security}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        self.wait(f"service account of {name}", lambda: "default" in self.names("serviceaccount", name))
        return name

    def drop_namespace(self, name: str) -> None:
        """Has a namespace deleted with all that is in it, and does not wait for it."""
        self.kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=false")

    def evict(self, pod: str, namespace: str) -> Outcome:
        """Asks the Eviction API, which answers 429 as long as a disruption budget says no."""
        eviction = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": namespace},
        }
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction"
        return self.run(str(built(KUBECTL)), "create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))

    def wait(self, what: str, ready: Callable[[], bool], deadline: float = 60.0) -> None:
        """Polls until it is so. Raises AssertionError naming what was waited for."""
        until = time.monotonic() + deadline
        while not ready():
            assert time.monotonic() < until, f"waited {deadline:.0f} s in vain for: {what}"
            time.sleep(POLL)
