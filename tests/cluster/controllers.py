"""Controllers that the chart can use, run as processes against a cluster's API: KEDA with its metrics adapter."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.api import Cluster, Manifest
from tests.cluster.control_plane import Site
from tests.cluster.programs import KEDA_ADAPTER, KEDA_OPERATOR, definition_files
from tests.servers.certificates import Authority
from tests.servers.processes import ServerProcess, free_port, running

NAMESPACE = "keda"
METRICS_SERVICE = "keda-metrics-apiserver"


@contextmanager
def run_keda(site: Site, cluster: Cluster) -> Iterator[None]:
    """KEDA's operator, and its adapter as the API of external metrics. Needs the group `controllers` of programs."""
    install_definitions(cluster, "keda")
    cluster.namespace(NAMESPACE)
    certificates = _certificates(site)
    env = {"POD_NAMESPACE": NAMESPACE, "WATCH_NAMESPACE": ""}
    options = ("--metrics-bind-address=0", "--health-probe-bind-address=0", f"--cert-dir={certificates}")
    flag = "--metrics-service-bind-address=127.0.0.1:"
    with running(site.start(KEDA_OPERATOR, *options, port=flag, env=env)) as operator:
        adapter = _start_adapter(site, certificates, operator, env)
        with running(adapter):
            cluster.apply(*_aggregated_api(adapter.port), namespace=NAMESPACE)
            cluster.wait("the API of external metrics", lambda: _is_available(cluster), deadline=90.0)
            yield


def install_definitions(cluster: Cluster, *names: str) -> None:
    """Installs custom resource definitions by the names of `DEFINITIONS`; waits until the API server serves them."""
    files = [f"--filename={file}" for name in names for file in definition_files(name)]
    cluster.kubectl("apply", "--server-side", *files)
    cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")


def _start_adapter(site: Site, certificates: Path, operator: ServerProcess, env: dict[str, str]) -> ServerProcess:
    return site.start(
        KEDA_ADAPTER,
        f"--metrics-service-address=127.0.0.1:{operator.port}",
        f"--port={free_port()}",
        "--bind-address=127.0.0.1",
        f"--client-ca-file={certificates}/ca.crt",
        f"--tls-cert-file={certificates}/tls.crt",
        f"--tls-private-key-file={certificates}/tls.key",
        f"--cert-dir={certificates}",
        *(f"--{who}-kubeconfig={site.kubeconfig}" for who in ("authentication", "authorization", "lister")),
        env=env,
    )


def _certificates(site: Site) -> Path:
    """A folder as KEDA expects it mounted: tls.crt, tls.key, ca.crt, all of the cluster's authority."""
    folder = site.subfolder("keda-certificates")
    issued = Authority(site.subfolder("keys")).issue("keda", names="subjectAltName=DNS:localhost,IP:127.0.0.1")
    for file, name in ((issued.cert, "tls.crt"), (issued.key, "tls.key"), (issued.ca, "ca.crt")):
        assert file is not None
        shutil.copy(file, folder / name)
    return folder


def _aggregated_api(port: int) -> list[Manifest]:
    """The adapter runs beside the API server: the Service that leads to it is a name of this machine."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": METRICS_SERVICE, "namespace": NAMESPACE},
        "spec": {"type": "ExternalName", "externalName": "localhost"},
    }
    registration = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": "v1beta1.external.metrics.k8s.io"},
        "spec": {
            "service": {"name": METRICS_SERVICE, "namespace": NAMESPACE, "port": port},
            "group": "external.metrics.k8s.io",
            "version": "v1beta1",
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "insecureSkipTLSVerify": True,
        },
    }
    return [service, registration]


def _is_available(cluster: Cluster) -> bool:
    found = cluster.get("apiservice", "v1beta1.external.metrics.k8s.io")
    conditions = found.get("status", {}).get("conditions", [])
    return any(one["type"] == "Available" and one["status"] == "True" for one in conditions)
