"""A Helm release of the chart in a cluster, as the tests handle it."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.api import Cluster, Manifest, Outcome, is_ready
from tests.cluster.programs import KUBECTL, built

CHART = Path(__file__).parents[2] / "helm" / "quatrain"
DEADLINE = 300  # seconds that helm waits


@dataclass(frozen=True)
class Release:
    """One release. `values` are options of helm that say what its values are, such as `--set=a=b`."""

    cluster: Cluster
    namespace: str
    name: str = "quatrain"
    values: Sequence[str] = ()
    seconds: int = DEADLINE
    chart: Path = CHART

    @property
    def selector(self) -> str:
        return f"app.kubernetes.io/instance={self.name}"

    def try_install(self, *more: str, wait: bool = True) -> Outcome:
        """Installs the chart, or says why not."""
        waiting = ("--wait", f"--timeout={self.seconds}s") if wait else ()
        command = ("install", self.name, str(self.chart), "-n", self.namespace, *waiting, *self.values, *more)
        return self.cluster.try_helm(*command, deadline=self.seconds + 60.0)

    def install(self, *more: str) -> None:
        """Installs the chart and waits until all is ready."""
        done = self.try_install(*more)
        assert done.code == 0, f"{done.errors}\n{self.state()}"

    def upgrade(self, *more: str) -> None:
        """Another revision, with the same values and `more`."""
        self._helm("upgrade", str(self.chart), "--wait", f"--timeout={self.seconds}s", *self.values, *more)

    def rollback(self, revision: int) -> None:
        """Back to an earlier revision."""
        self._helm("rollback", str(revision), "--wait", f"--timeout={self.seconds}s")

    def test(self) -> str:
        """`helm test`; returns what it says."""
        return self._helm("test", "--timeout", f"{self.seconds}s")

    def uninstall(self) -> None:
        """Waits until its objects are gone."""
        self._helm("uninstall", "--wait", f"--timeout={self.seconds}s")

    def object(self, kind: str, component: str) -> Manifest:
        """The object of a service."""
        return self.cluster.get(kind, f"{self.full_name}-{component}", self.namespace)

    def secret(self, name: str) -> dict[str, str]:
        """The texts in one of its Secrets."""
        found = self.cluster.get("secret", f"{self.full_name}-{name}", self.namespace)["data"]
        return {key: base64.b64decode(data).decode() for key, data in found.items()}

    def objects(self, kind: str, component: str = "") -> list[Manifest]:
        """The release's objects of a kind."""
        selector = self.selector + (f",app.kubernetes.io/component={component}" if component else "")
        return self.cluster.objects(kind, self.namespace, selector)

    def pods(self, component: str = "") -> list[str]:
        """Names of the pods that are not on their way out."""
        found = [pod["metadata"] for pod in self.objects("pod", component)]
        return sorted(meta["name"] for meta in found if "deletionTimestamp" not in meta)

    def state(self) -> str:
        """What stands in the way: pods, events, and the last words of pods that are not ready."""
        asked = (("pod",), ("event", "--field-selector=type=Warning"))
        parts = [self.cluster.kubectl("get", *what, "-n", self.namespace) for what in asked]
        for pod in self.objects("pod"):
            if not is_ready(pod):
                name, options = pod["metadata"]["name"], ("--all-containers", "--tail=20", "-n", self.namespace)
                said = self.cluster.run(str(built(KUBECTL)), "logs", name, *options)
                parts.append(f"{name}:\n{said.output}{said.errors}")
        return "\n".join(parts)

    @property
    def full_name(self) -> str:
        """What the names of its objects begin with."""
        return self.name if "quatrain" in self.name else f"{self.name}-quatrain"

    def _helm(self, command: str, *arguments: str) -> str:
        call = (command, self.name, *arguments, "-n", self.namespace)
        done = self.cluster.try_helm(*call, deadline=self.seconds + 60.0)
        assert done.code == 0, f"helm {command}: {done.output[-2000:]}{done.errors}\n{self.state()}"
        return done.output
