"""Controllers that the chart can use, run as processes beside a cluster's API server: KEDA with its metrics adapter."""

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.api import Cluster, Manifest, holds
from tests.cluster.control_plane import Site
from tests.cluster.definitions import install_definitions
from tests.cluster.programs import KEDA_ADAPTER, KEDA_OPERATOR
from tests.cluster.webhooks import controller_certificates
from tests.servers.processes import ServerProcess, running

from quatrain.local.ports import free_port

NAMESPACE = "keda"
METRICS_SERVICE, METRICS_API = "keda-metrics-apiserver", "v1beta1.external.metrics.k8s.io"


@contextmanager
def run_keda(site: Site, cluster: Cluster) -> Iterator[None]:
    """KEDA's operator, and its adapter as the API of external metrics. Needs the group `controllers`."""
    install_definitions(cluster, "keda")
    cluster.namespace(NAMESPACE)
    certificates = controller_certificates(site, "keda", f"{METRICS_SERVICE}.{NAMESPACE}.svc")
    env = {"KUBECONFIG": str(site.kubeconfig), "POD_NAMESPACE": NAMESPACE, "WATCH_NAMESPACE": ""}
    env["KEDA_CLUSTER_OBJECT_NAMESPACE"] = NAMESPACE
    options = ("--metrics-bind-address=0", "--health-probe-bind-address=0", f"--cert-dir={certificates}")
    flag = "--metrics-service-bind-address=127.0.0.1:"
    with (
        running(site.start(KEDA_OPERATOR, *options, port=flag, env=env)) as operator,
        running(_start_adapter(site, certificates, operator, env)) as adapter,
    ):
        cluster.apply(*_aggregated_api(adapter.port, certificates), namespace=NAMESPACE)
        try:
            cluster.wait(
                "the API of external metrics",
                lambda: holds(cluster.get("apiservice", METRICS_API), "Available"),
                deadline=90.0,
            )
            yield
        finally:  # an API that nobody serves would hold up the end of every namespace
            cluster.kubectl("delete", "apiservice", METRICS_API)


def _start_adapter(site: Site, certificates: Path, operator: ServerProcess, env: dict[str, str]) -> ServerProcess:
    return site.start(
        KEDA_ADAPTER,
        f"--metrics-service-address=127.0.0.1:{operator.port}",
        f"--port={free_port()}",
        "--bind-address=127.0.0.1",
        f"--tls-cert-file={certificates}/tls.crt",
        f"--tls-private-key-file={certificates}/tls.key",
        f"--cert-dir={certificates}",
        *(f"--{who}-kubeconfig={site.kubeconfig}" for who in ("authentication", "authorization", "lister")),
        env=env,
    )


def _aggregated_api(port: int, certificates: Path) -> list[Manifest]:
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
        "metadata": {"name": METRICS_API},
        "spec": {
            "service": {"name": METRICS_SERVICE, "namespace": NAMESPACE, "port": port},
            "group": "external.metrics.k8s.io",
            "version": "v1beta1",
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "caBundle": base64.b64encode((certificates / "ca.crt").read_bytes()).decode(),
        },
    }
    return [service, registration]
