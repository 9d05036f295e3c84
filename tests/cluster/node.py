"""A real Kubernetes of one node in which pods run: containerd, kubelet, kube-proxy, CoreDNS beside a control plane.

`python -m tests.cluster.node [IMAGE.tar ...]` starts one, imports the images and opens a shell in it. Needs root and
the Debian packages containerd, runc, containernetworking-plugins, iptables, nftables, conntrack, iproute2. Network
policies are not enforced, and there is no load balancer and no metrics server. Pulling an image fails at once.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import yaml
from tests.cluster.api import Cluster
from tests.cluster.control_plane import SERVICE_NETWORK, Site, run_control_plane
from tests.cluster.images import write_image
from tests.cluster.namespaces import NodeNamespaces, isolated_namespaces, remove_groups
from tests.cluster.programs import COREDNS, KUBE_PROXY, KUBELET, PAUSE, built
from tests.cluster.volumes import volumes_on_demand
from tests.servers.processes import ServerProcess, running, start_server

NODE, NODE_ADDRESS, POD_NETWORK, DNS_SERVICE = "node", "10.98.0.1", "10.97.0.0/24", "10.96.0.10"
PAUSE_IMAGE = "localhost/quatrain-test/pause:1"
KUBELET_PORT = 17250
PLUGINS = Path("/usr/lib/cni")
NEEDED = ("containerd", "runc", "ctr", "ip", "iptables", "nft", "conntrack", "unshare", "nsenter", "setpriv")


@dataclass(frozen=True)
class Node:
    """A running node."""

    site: Site
    cluster: Cluster

    def import_image(self, archive: Path) -> None:
        """Gives the node an image from a docker-archive. Raises CalledProcessError when containerd refuses it."""
        _ctr(self.site, "images", "import", "--digests", str(archive))

    def name_image(self, known: str, other: str) -> None:
        """An image that the node has gets another name, too."""
        _ctr(self.site, "images", "tag", "--force", known, other)


@contextmanager
def run_node(folder: Path) -> Iterator[Node]:
    """A node with nothing on it. Needs the programs of the group `node`. Raises RuntimeError naming what is missing."""
    _check_machine()
    with ExitStack() as stack:
        stack.callback(remove_groups)
        namespaces = stack.enter_context(isolated_namespaces(folder, NODE_ADDRESS))
        site = Site(folder, NODE_ADDRESS, namespaces.enter)
        _make_network(site, namespaces)
        stack.enter_context(running(_start_containerd(site)))
        pause = write_image(folder / "pause.tar", PAUSE_IMAGE, {"/pause": built(PAUSE)}, ["/pause"], "65535:65535")
        _ctr(site, "images", "import", str(pause))
        cluster = stack.enter_context(run_control_plane(site))
        stack.enter_context(running(_start_kubelet(site)))
        stack.enter_context(running(_start_proxy(site)))
        stack.enter_context(running(_start_dns(site, cluster)))
        cluster.kubectl("wait", "--for=condition=Ready", f"node/{NODE}", "--timeout=120s")
        stack.enter_context(volumes_on_demand(cluster, folder / "volumes", NODE))
        yield Node(site, cluster)


def _check_machine() -> None:
    missing = [name for name in NEEDED if shutil.which(name) is None]
    missing += [] if (PLUGINS / "bridge").exists() else [str(PLUGINS / "bridge")]
    missing += [] if os.geteuid() == 0 else ["the rights of root"]
    if missing:
        raise RuntimeError(f"a node needs {', '.join(missing)}; {__name__} says which packages bring them")


def _make_network(site: Site, namespaces: NodeNamespaces) -> None:
    """The node's own address on a bridge, through which also the addresses of Services seem to lead."""
    for command in (
        "link add node0 type bridge",
        f"addr add {NODE_ADDRESS}/32 dev node0",
        "link set node0 up",
        f"route add {SERVICE_NETWORK} dev node0",
    ):
        namespaces.run("ip", *command.split())
    bridge = {
        "type": "bridge",
        "bridge": "pods0",
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": str(site.subfolder("addresses")),
            "ranges": [[{"subnet": POD_NETWORK}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    plugins = {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge, ports]}
    (site.subfolder("cni") / "10-pods.conflist").write_text(json.dumps(plugins))


def _start_containerd(site: Site) -> ServerProcess:
    folder = site.subfolder("containerd")
    hosts = folder / "registries" / "_default"
    hosts.mkdir(parents=True, exist_ok=True)
    nowhere = "http://127.0.0.1:9"  # nothing listens there
    (hosts / "hosts.toml").write_text(
        f'server = "{nowhere}"\n[host."{nowhere}"]\n  capabilities = ["pull", "resolve"]\n'
    )
    config = folder / "config.toml"
    config.write_text(_containerd_config(site))
    return start_server(
        lambda port: [*site.prefix, "containerd", f"--config={config}", "--log-level=info"],
        folder,
        ready=lambda port: _answers(site),
    )


def _containerd_config(site: Site) -> str:
    """Without the right to raise limits (CAP_SYS_RESOURCE), as in many sandboxes, containers keep their OOM score."""
    folder = site.subfolder("containerd")
    unused = [f"io.containerd.snapshotter.v1.{name}" for name in ("aufs", "btrfs", "devmapper", "zfs")]
    cri = '[plugins."io.containerd.grpc.v1.cri"'
    return f"""
version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = {json.dumps(unused)}
[grpc]
address = "{_socket(site)}"
{cri}]
sandbox_image = "{PAUSE_IMAGE}"
restrict_oom_score_adj = true
disable_apparmor = true
tolerate_missing_hugetlb_controller = true
{cri}.registry]
config_path = "{folder}/registries"
{cri}.cni]
bin_dir = "{PLUGINS}"
conf_dir = "{site.subfolder("cni")}"
{cri}.containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"
{cri}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
{cri}.containerd.runtimes.runc.options]
SystemdCgroup = false
"""


def _start_kubelet(site: Site) -> ServerProcess:
    resolver = site.folder / "resolv.conf"
    resolver.write_text(f"nameserver {NODE_ADDRESS}\n")
    config = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_ADDRESS,
        "port": KUBELET_PORT,
        "readOnlyPort": 0,
        "healthzPort": 0,
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": f"unix://{_socket(site)}",
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "maxOpenFiles": 20000,
        "clusterDNS": [DNS_SERVICE],
        "clusterDomain": "cluster.local",
        "resolvConf": str(resolver),
        "podCIDR": POD_NETWORK,
        "podLogsDir": str(site.subfolder("pod-logs")),
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "syncFrequency": "10s",
    }
    path = site.folder / "kubelet.yaml"
    path.write_text(yaml.safe_dump(config))
    options = (
        f"--config={path}",
        f"--kubeconfig={site.kubeconfig}",
        f"--root-dir={site.subfolder('kubelet-root')}",
        f"--cert-dir={site.subfolder('kubelet-keys')}",
        f"--hostname-override={NODE}",
        f"--node-ip={NODE_ADDRESS}",
    )
    return start_server(
        lambda port: [*site.command(KUBELET), *options],
        site.subfolder(KUBELET.name),
        ready=lambda port: site.listens(NODE_ADDRESS, KUBELET_PORT),
    )


def _start_proxy(site: Site) -> ServerProcess:
    config = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "bindAddress": NODE_ADDRESS,
        "clientConnection": {"kubeconfig": str(site.kubeconfig)},
        "clusterCIDR": POD_NETWORK,
        "hostnameOverride": NODE,
        "healthzBindAddress": "127.0.0.1:17256",
        "metricsBindAddress": "127.0.0.1:17255",
        "mode": "nftables",
        "oomScoreAdj": 0,
        "nodePortAddresses": [f"{NODE_ADDRESS}/32"],
        "conntrack": {"maxPerCore": 0},
    }
    path = site.folder / "kube-proxy.yaml"
    path.write_text(yaml.safe_dump(config))
    return start_server(
        lambda port: [*site.command(KUBE_PROXY), f"--config={path}"],
        site.subfolder(KUBE_PROXY.name),
        ready=lambda port: site.listens("127.0.0.1", 17255),
    )


def _start_dns(site: Site, cluster: Cluster) -> ServerProcess:
    """CoreDNS on the node's address, and the Service by which pods reach it."""
    corefile = site.folder / "Corefile"
    corefile.write_text(f"""
cluster.local:53 {{
  bind {NODE_ADDRESS}
  errors
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {site.kubeconfig} tests
    ttl 5
  }}
  cache 5
}}
.:53 {{
  bind {NODE_ADDRESS}
  errors
  template ANY ANY {{
    rcode NXDOMAIN
  }}
}}
""")
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns"},
        "spec": {"clusterIP": DNS_SERVICE, "ports": ports},
    }
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "kube-dns-node", "labels": {"kubernetes.io/service-name": "kube-dns"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [NODE_ADDRESS], "conditions": {"ready": True}}],
        "ports": ports,
    }
    cluster.apply(service, endpoints, namespace="kube-system")
    return start_server(
        lambda port: [*site.command(COREDNS), "-conf", str(corefile)],
        site.subfolder(COREDNS.name),
        ready=lambda port: site.listens(NODE_ADDRESS, 53),
    )


def _socket(site: Site) -> Path:
    return site.folder / "containerd.sock"


def _ctr(site: Site, *arguments: str) -> None:
    command = [*site.enter, "ctr", f"--address={_socket(site)}", "--namespace=k8s.io", *arguments]
    subprocess.run(command, check=True, capture_output=True, timeout=900.0)


def _answers(site: Site) -> bool:
    with suppress(subprocess.CalledProcessError):
        _ctr(site, "version")
        return True
    return False


def main(archives: Sequence[str]) -> None:
    """A shell in which kubectl and helm speak to a new node; when it ends all is gone."""
    with tempfile.TemporaryDirectory(prefix="quatrain-node-") as folder, run_node(Path(folder)) as node:
        for archive in archives:
            node.import_image(Path(archive))
        env = {**os.environ, "KUBECONFIG": str(node.site.kubeconfig), "PS1": "node# "}
        subprocess.run([*node.site.enter, "bash", "--norc"], env=env, check=False)


if __name__ == "__main__":
    main(sys.argv[1:])
