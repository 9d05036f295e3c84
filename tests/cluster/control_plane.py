"""A real control plane: etcd, API server, controllers, scheduler. Its processes die with the one that started them."""

import json
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.api import Cluster
from tests.cluster.namespaces import DIE_WITH_PARENT
from tests.cluster.programs import API_SERVER, CONTROLLER_MANAGER, ETCD, KUBECTL, SCHEDULER, built
from tests.servers.binaries import GoProgram
from tests.servers.certificates import Authority
from tests.servers.processes import ServerProcess, running, start_server

from quatrain.local.ports import free_port
from quatrain.rpc.certificates import CertificateFiles

FRONT_PROXY = "front-proxy-client"
SERVICE_NETWORK, FIRST_SERVICE = "10.96.0.0/16", "10.96.0.1"
QUICK_AUTOSCALER = "--horizontal-pod-autoscaler-sync-period=2s"
SYSTEM_NAMES = ("kubernetes.default.svc.cluster.local", "kubernetes.default.svc", "kubernetes", "localhost")


@dataclass(frozen=True)
class Site:
    """Where a control plane lives: its folder, the address that it listens on, and how its network is entered."""

    folder: Path
    host: str = "127.0.0.1"
    enter: tuple[str, ...] = ()

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    def subfolder(self, name: str) -> Path:
        made = self.folder / name
        made.mkdir(parents=True, exist_ok=True)
        return made

    def start(
        self, program: GoProgram, *arguments: str, port: str = "--secure-port=", env: dict[str, str] | None = None
    ) -> ServerProcess:
        """Starts a program; `port` is the flag that ends with it."""
        return start_server(
            lambda chosen: [*self.command(program), f"{port}{chosen}", *arguments],
            self.subfolder(program.name),
            ready=lambda chosen: self.listens("127.0.0.1", chosen),
            env=env,
        )

    @property
    def prefix(self) -> tuple[str, ...]:
        """Goes before each process that stays."""
        return (*DIE_WITH_PARENT, *self.enter)

    def command(self, program: GoProgram) -> Sequence[str]:
        """How a program begins."""
        return [*self.prefix, str(built(program))]

    def listens(self, host: str, port: int) -> bool:
        """Whether something accepts connections there, seen from within the network."""
        probe = [*self.enter, "bash", "-c", f"exec 3<>/dev/tcp/{host}/{port}"]
        return subprocess.run(probe, stderr=subprocess.DEVNULL, check=False, timeout=10.0).returncode == 0


@dataclass(frozen=True)
class Keys:
    """Certificates of the API server and of its aggregation layer, the key of service accounts, the tests' token."""

    authority: Authority
    server: CertificateFiles
    front_proxy: CertificateFiles
    accounts: CertificateFiles
    token: str = field(default_factory=lambda: secrets.token_hex(16))

    @classmethod
    def make(cls, site: Site) -> "Keys":
        authority = Authority.make(site.subfolder("keys"))
        addresses = sorted({"127.0.0.1", site.host, FIRST_SERVICE})
        server = authority.issue("kube-apiserver", hosts=[*SYSTEM_NAMES, *addresses])
        return cls(authority, server, authority.issue(FRONT_PROXY), authority.issue("service-accounts"))


@contextmanager
def run_control_plane(site: Site) -> Iterator[Cluster]:
    """An empty cluster without nodes. Needs the programs of the group `chart`."""
    keys = Keys.make(site)
    cluster = Cluster(site.kubeconfig, site.enter)
    with ExitStack() as stack:
        etcd = stack.enter_context(running(_start_etcd(site)))
        stack.enter_context(running(_start_api_server(site, keys, etcd, cluster)))
        client = (f"--kubeconfig={site.kubeconfig}", "--leader-elect=false", "--bind-address=127.0.0.1")
        signing = (f"--service-account-private-key-file={keys.accounts.key}", f"--root-ca-file={keys.authority.ca}")
        stack.enter_context(running(site.start(CONTROLLER_MANAGER, *client, *signing, QUICK_AUTOSCALER)))
        stack.enter_context(running(site.start(SCHEDULER, *client)))
        cluster.wait("default namespace", lambda: "default" in cluster.names("namespace"))
        yield cluster


def _start_etcd(site: Site) -> ServerProcess:
    def command(port: int) -> Sequence[str]:
        client, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{free_port()}"
        return [
            *(*site.command(ETCD), "--data-dir", str(site.subfolder("etcd") / str(port)), "--unsafe-no-fsync"),
            *("--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer),
            *("--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"),
        ]

    return start_server(command, site.subfolder("etcd"), ready=lambda port: site.listens("127.0.0.1", port))


def _start_api_server(site: Site, keys: Keys, etcd: ServerProcess, cluster: Cluster) -> ServerProcess:
    tokens = site.folder / "tokens.csv"
    tokens.touch(0o600)
    tokens.write_text(f'{keys.token},tests,1,"system:masters"\n')

    def command(port: int) -> Sequence[str]:
        _write_kubeconfig(site, keys, port)
        return [
            *(*site.command(API_SERVER), f"--etcd-servers=http://127.0.0.1:{etcd.port}", f"--secure-port={port}"),
            *(f"--bind-address={site.host}", f"--advertise-address={site.host}", *_reconciler(site)),
            *(f"--tls-cert-file={keys.server.cert}", f"--tls-private-key-file={keys.server.key}"),
            *(f"--service-cluster-ip-range={SERVICE_NETWORK}", f"--token-auth-file={tokens}"),
            *("--service-account-issuer=https://kubernetes.default.svc", "--authorization-mode=RBAC"),
            *(f"--service-account-key-file={keys.accounts.cert}", "--allow-privileged=true"),
            *(f"--service-account-signing-key-file={keys.accounts.key}", *_aggregation(keys)),
            "--kubelet-preferred-address-types=InternalIP",
        ]

    def ready(port: int) -> bool:
        return cluster.run(str(built(KUBECTL)), "get", "--raw", "/readyz", deadline=30.0).output == "ok"

    return start_server(command, site.subfolder("kube-apiserver"), ready=ready)


def _reconciler(site: Site) -> tuple[str, ...]:
    """A loopback address may not stand in the endpoints of the Service `kubernetes`."""
    return ("--endpoint-reconciler-type=none",) if site.host == "127.0.0.1" else ()


def _aggregation(keys: Keys) -> tuple[str, ...]:
    """How the API server proves to API servers beside it (KEDA's metrics) who asks."""
    return (
        f"--requestheader-client-ca-file={keys.authority.ca}",
        f"--requestheader-allowed-names={FRONT_PROXY}",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={keys.front_proxy.cert}",
        f"--proxy-client-key-file={keys.front_proxy.key}",
    )


def _write_kubeconfig(site: Site, keys: Keys, port: int) -> None:
    cluster = {"server": f"https://{site.host}:{port}", "certificate-authority": str(keys.authority.ca)}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "tests", "cluster": cluster}],
        "users": [{"name": "tests", "user": {"token": keys.token}}],
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests"}}],
        "current-context": "tests",
    }
    site.kubeconfig.touch(0o600)
    site.kubeconfig.write_text(json.dumps(config))
