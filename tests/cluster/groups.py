"""LeaderWorkerSet's controller and its webhooks, run as a process beside a cluster's API server."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.api import Cluster, Manifest
from tests.cluster.control_plane import Site
from tests.cluster.definitions import install_definitions
from tests.cluster.programs import LWS, LWS_MANAGER, module_folder
from tests.cluster.webhooks import controller_certificates, registered, registrations_at
from tests.servers.processes import running

from quatrain.local.ports import free_port

NAMESPACE = "lws-system"
OF_GROUPS = {"matchExpressions": [{"key": "leaderworkerset.sigs.k8s.io/name", "operator": "Exists"}]}


@contextmanager
def run_lws(site: Site, cluster: Cluster) -> Iterator[None]:
    """LeaderWorkerSet as it is deployed, but for the way to its webhooks. Needs the group `controllers`."""
    install_definitions(cluster, "lws")
    cluster.namespace(NAMESPACE)
    certificates, port = controller_certificates(site, "lws"), free_port()
    env = {"KUBECONFIG": str(site.kubeconfig), "POD_NAMESPACE": NAMESPACE}
    options = (f"--config={_configuration(site, certificates, port)}", "--metrics-bind-address=0")
    manager = site.start(LWS_MANAGER, *options, port="--health-probe-bind-address=127.0.0.1:", env=env)
    with running(manager):
        cluster.wait("the webhooks of LeaderWorkerSet", lambda: site.listens("127.0.0.1", port))
        with registered(cluster, _registrations(port, certificates)):
            yield


def _configuration(site: Site, certificates: Path, port: int) -> Path:
    path = site.subfolder("lws-configuration") / "configuration.json"
    document = {
        "apiVersion": "config.lws.x-k8s.io/v1alpha1",
        "kind": "Configuration",
        "leaderElection": {"leaderElect": False},
        "internalCertManagement": {"enable": False},
        "webhook": {"host": "127.0.0.1", "port": port, "certDir": str(certificates)},
    }
    path.write_text(json.dumps(document))
    return path


def _registrations(port: int, certificates: Path) -> list[Manifest]:
    manifests = module_folder(f"sigs.k8s.io/lws@{LWS}") / "config" / "webhook" / "manifests.yaml"

    def adapt(webhook: Manifest, path: str) -> bool:
        if path.endswith("-pod"):  # as the module's own patches say
            webhook["objectSelector"] = OF_GROUPS
        return True

    return registrations_at(port, certificates, manifests, "lws", adapt)
