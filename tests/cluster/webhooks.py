"""Controllers that run beside a cluster: their certificates, and how its API server is told to call their webhooks."""

import base64
import shutil
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from tests.cluster.api import Cluster, Manifest
from tests.cluster.control_plane import Site
from tests.servers.certificates import Authority

REQUEST_DEADLINE = 5.0


def controller_certificates(site: Site, name: str, *hosts: str) -> Path:
    """A folder with tls.crt, tls.key and ca.crt, all of the cluster's authority, for this machine and `hosts`."""
    folder = site.subfolder(f"{name}-certificates")
    issued = Authority(site.subfolder("keys")).issue(name, hosts=[*hosts, "127.0.0.1"])
    for file, target in ((issued.cert, "tls.crt"), (issued.key, "tls.key"), (issued.ca, "ca.crt")):
        assert file is not None
        shutil.copy(file, folder / target)
    return folder


def registrations_at(
    port: int, certificates: Path, manifests: Path, prefix: str, adapt: Callable[[Manifest, str], bool]
) -> list[Manifest]:
    """A module's own webhooks, called at this machine's loopback address: no Service leads there.

    `adapt` may change a webhook, whose path it is told; those for which it says False are left out.
    """
    bundle = base64.b64encode((certificates / "ca.crt").read_bytes()).decode()
    registrations: list[Manifest] = list(yaml.safe_load_all(manifests.read_text()))
    for registration in registrations:
        registration["metadata"]["name"] = f"{prefix}-{registration['metadata']['name']}"
        kept = []
        for webhook in registration["webhooks"]:
            path = webhook["clientConfig"]["service"]["path"]
            webhook["clientConfig"] = {"url": f"https://127.0.0.1:{port}{path}", "caBundle": bundle}
            if adapt(webhook, path):
                kept.append(webhook)
        registration["webhooks"] = kept
    return registrations


@contextmanager
def registered(cluster: Cluster, registrations: list[Manifest]) -> Iterator[None]:
    """Has the API server call the webhooks for as long as the context lasts; nobody serves them after it."""
    cluster.apply(*registrations)
    try:
        yield
    finally:  # webhooks that nobody serves would refuse pods
        for one in registrations:
            cluster.kubectl("delete", one["kind"], one["metadata"]["name"])


def all_served(registrations: list[Manifest], certificates: Path) -> bool:
    """Whether each webhook is there: some controllers add theirs when they already listen."""
    urls = [webhook["clientConfig"]["url"] for one in registrations for webhook in one["webhooks"]]
    context = ssl.create_default_context(cafile=str(certificates / "ca.crt"))
    return all(_served(url, context) for url in urls)


def _served(url: str, context: ssl.SSLContext) -> bool:
    try:
        with urllib.request.urlopen(url, data=b"{}", context=context, timeout=REQUEST_DEADLINE):
            return True
    except urllib.error.HTTPError as refused:  # answers to a review without a request are errors, too
        refused.close()
        return refused.code != 404
    except OSError:
        return False
