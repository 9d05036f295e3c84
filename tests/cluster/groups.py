"""LeaderWorkerSet's controller and its webhooks, run as a process beside a cluster's API server."""

import base64
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from tests.cluster.api import Cluster, Manifest
from tests.cluster.control_plane import Site
from tests.cluster.definitions import install_definitions
from tests.cluster.programs import LWS, LWS_MANAGER, module_folder
from tests.servers.certificates import Authority
from tests.servers.processes import free_port, running

NAMESPACE = "lws-system"
OF_GROUPS = {"matchExpressions": [{"key": "leaderworkerset.sigs.k8s.io/name", "operator": "Exists"}]}


@contextmanager
def run_lws(site: Site, cluster: Cluster) -> Iterator[None]:
    """LeaderWorkerSet as it is deployed, but for the way to its webhooks. Needs the group `controllers`."""
    install_definitions(cluster, "lws")
    cluster.namespace(NAMESPACE)
    certificates, port = _certificates(site), free_port()
    env = {"KUBECONFIG": str(site.kubeconfig), "POD_NAMESPACE": NAMESPACE}
    options = (f"--config={_configuration(site, certificates, port)}", "--metrics-bind-address=0")
    manager = site.start(LWS_MANAGER, *options, port="--health-probe-bind-address=127.0.0.1:", env=env)
    with running(manager):
        cluster.wait("the webhooks of LeaderWorkerSet", lambda: site.listens("127.0.0.1", port))
        registrations = _registrations(port, certificates)
        cluster.apply(*registrations)
        try:
            yield
        finally:  # webhooks that nobody serves would refuse pods
            for one in registrations:
                cluster.kubectl("delete", one["kind"], one["metadata"]["name"])


def _certificates(site: Site) -> Path:
    """A folder with tls.crt, tls.key and ca.crt, all of the cluster's authority."""
    folder = site.subfolder("lws-certificates")
    issued = Authority(site.subfolder("keys")).issue("lws", names="subjectAltName=IP:127.0.0.1")
    for file, name in ((issued.cert, "tls.crt"), (issued.key, "tls.key"), (issued.ca, "ca.crt")):
        assert file is not None
        shutil.copy(file, folder / name)
    return folder


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
    """The module's own webhooks, called at this machine's loopback address: no Service leads there."""
    folder = module_folder(f"sigs.k8s.io/lws@{LWS}") / "config" / "webhook"
    bundle = base64.b64encode((certificates / "ca.crt").read_bytes()).decode()
    registrations: list[Manifest] = list(yaml.safe_load_all((folder / "manifests.yaml").read_text()))
    for registration in registrations:
        registration["metadata"]["name"] = f"lws-{registration['metadata']['name']}"
        for webhook in registration["webhooks"]:
            path = webhook["clientConfig"]["service"]["path"]
            webhook["clientConfig"] = {"url": f"https://127.0.0.1:{port}{path}", "caBundle": bundle}
            if path.endswith("-pod"):  # as the module's own patches say
                webhook["objectSelector"] = OF_GROUPS
    return registrations
