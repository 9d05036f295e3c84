"""Kueue's controller and its webhooks, run as a process beside a cluster's API server."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tests.cluster.api import Cluster, Manifest
from tests.cluster.control_plane import Site
from tests.cluster.definitions import install_definitions
from tests.cluster.programs import KUEUE, KUEUE_MANAGER, module_folder
from tests.cluster.webhooks import all_served, controller_certificates, registered, registrations_at
from tests.servers.processes import running, start_server

NAMESPACE = "kueue-system"
FRAMEWORKS = ("pod", "deployment", "statefulset", "leaderworkerset.x-k8s.io/leaderworkerset")
# Of these API groups something is made here. The others' webhooks would be called for what is none of Kueue's.
OURS = ("", "apps", "leaderworkerset.x-k8s.io", "kueue.x-k8s.io")
ELSEWHERE = {
    "matchExpressions": [
        {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system", NAMESPACE]}
    ]
}
# Kueue reads the certificate of its metrics at a fixed place below /etc, so it sees an /etc that has nothing else.
OWN_ETC = ("unshare", "--map-root-user", "--mount", "--", "bash", "-c", 'mount --bind "$0" /etc && exec "$@"')
METRICS_CERTIFICATES = "kueue/metrics/certs"


@contextmanager
def run_kueue(site: Site, cluster: Cluster) -> Iterator[None]:
    """Kueue as it is deployed, but for the way to its webhooks. Needs the group `controllers`."""
    install_definitions(cluster, "kueue")
    cluster.namespace(NAMESPACE)
    certificates = controller_certificates(site, "kueue")
    etc = site.subfolder("kueue-etc")
    shutil.copytree(certificates, etc / METRICS_CERTIFICATES)
    inside = replace(site, enter=(*site.enter, *OWN_ETC, str(etc)))

    def command(port: int) -> list[str]:
        return [*inside.command(KUEUE_MANAGER), f"--config={_configuration(site, certificates, port)}"]

    env = {"KUBECONFIG": str(site.kubeconfig)}
    folder = site.subfolder(KUEUE_MANAGER.name)
    server = start_server(command, folder, ready=lambda port: site.listens("127.0.0.1", port), env=env)
    with running(server):
        registrations = _registrations(server.port, certificates)
        cluster.wait("the webhooks of Kueue", lambda: all_served(registrations, certificates))
        with registered(cluster, registrations):
            yield


def _configuration(site: Site, certificates: Path, port: int) -> Path:
    path = site.subfolder("kueue-configuration") / "configuration.json"
    document = {
        "apiVersion": "config.kueue.x-k8s.io/v1beta1",
        "kind": "Configuration",
        "namespace": NAMESPACE,
        "leaderElection": {"leaderElect": False},
        "internalCertManagement": {"enable": False},
        "webhook": {"host": "127.0.0.1", "port": port, "certDir": str(certificates)},
        "metrics": {"bindAddress": "0"},
        "health": {"healthProbeBindAddress": "0"},
        "integrations": {"frameworks": list(FRAMEWORKS)},
        "featureGates": {"VisibilityOnDemand": False},  # an API for looking at queues
    }
    path.write_text(json.dumps(document))
    return path


def _registrations(port: int, certificates: Path) -> list[Manifest]:
    manifests = module_folder(f"sigs.k8s.io/kueue@{KUEUE}") / "config" / "components" / "webhook" / "manifests.yaml"

    def adapt(webhook: Manifest, path: str) -> bool:
        groups = {group for rule in webhook["rules"] for group in rule["apiGroups"]}
        if groups & {"", "apps"}:  # as the module's own patches say
            webhook["namespaceSelector"] = ELSEWHERE
        return groups <= set(OURS)

    return registrations_at(port, certificates, manifests, "kueue", adapt)
