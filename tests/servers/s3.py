"""Real S3 servers: MinIO, and versitygw as a second opinion."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import urllib3
from tests.servers.binaries import MINIO, VERSITYGW, require_program
from tests.servers.processes import ServerProcess, running, start_server

from quatrain.rpc.certificates import CertificateFiles
from quatrain.storage.s3 import S3Address, S3Store

ACCESS_KEY = "quatrain-test"
SECRET_KEY = "quatrain-test-secret"


@dataclass(frozen=True)
class S3Server:
    """A running S3 server and how to reach it."""

    process: ServerProcess
    access_key: str = ACCESS_KEY
    secret_key: str = SECRET_KEY

    @property
    def endpoint(self) -> str:
        return self.process.address

    def address(self, bucket: str, *, total_wait: float = 20.0) -> S3Address:
        return S3Address(self.endpoint, bucket, self.access_key, self.secret_key, secure=False, total_wait=total_wait)

    def environment(self, bucket: str, endpoint: str = "") -> dict[str, str]:
        """Settings of a process whose store is a bucket here; `endpoint`: by way of a proxy."""
        return {
            "QUATRAIN_STORAGE__KIND": "s3",
            "QUATRAIN_STORAGE__ENDPOINT": endpoint or self.endpoint,
            "QUATRAIN_STORAGE__SECURE": "false",
            "QUATRAIN_STORAGE__BUCKET": bucket,
            "QUATRAIN_STORAGE__ACCESS_KEY": self.access_key,
            "QUATRAIN_STORAGE__SECRET_KEY": self.secret_key,
        }

    def new_store(self, *, total_wait: float = 20.0) -> S3Store:
        """A store on a bucket of its own."""
        store = S3Store(self.address(f"test-{secrets.token_hex(6)}", total_wait=total_wait))
        store.ensure_bucket(create=True)
        return store


@contextmanager
def run_minio(folder: Path, *, port: int | None = None, tls: CertificateFiles | None = None) -> Iterator[S3Server]:
    """MinIO with its data in a folder; start it again with the same folder and port after a kill. With
    a certificate it speaks TLS only."""
    binary = str(require_program(MINIO))
    data = folder / "data"
    data.mkdir(exist_ok=True)
    secure = ["--certs-dir", str(_certificates(folder / "certificates", tls))] if tls else []
    env = {
        "MINIO_ROOT_USER": ACCESS_KEY,
        "MINIO_ROOT_PASSWORD": SECRET_KEY,
        "MINIO_BROWSER": "off",
        "MINIO_UPDATE": "off",
        "HOME": str(folder),
    }
    server = start_server(
        lambda chosen: [binary, "server", "--address", f"127.0.0.1:{chosen}", *secure, str(data)],
        folder,
        ready=lambda chosen: _answers(chosen, "/minio/health/ready", tls),
        env=env,
        port=port,
    )
    with running(server):
        yield S3Server(server)


@contextmanager
def run_versitygw(folder: Path) -> Iterator[S3Server]:
    """versitygw on a folder, metadata beside it so that no extended attributes are needed."""
    binary = str(require_program(VERSITYGW))
    for name in ("data", "meta"):
        (folder / name).mkdir(exist_ok=True)
    server = start_server(
        lambda chosen: [
            *(binary, "--port", f"127.0.0.1:{chosen}", "--health", "/health"),
            *("posix", "--sidecar", str(folder / "meta"), str(folder / "data")),
        ],
        folder,
        ready=lambda chosen: _answers(chosen, "/health"),
        env={"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY},
    )
    with running(server):
        yield S3Server(server)


@pytest.fixture(scope="session")
def minio_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with run_minio(tmp_path_factory.mktemp("minio")) as server:
        yield server


@pytest.fixture(scope="session")
def versitygw_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with run_versitygw(tmp_path_factory.mktemp("versitygw")) as server:
        yield server


def _certificates(folder: Path, tls: CertificateFiles) -> Path:
    """The folder with the names that MinIO looks for."""
    folder.mkdir(exist_ok=True)
    shutil.copy(str(tls.cert), folder / "public.crt")
    shutil.copy(str(tls.key), folder / "private.key")
    return folder


def _answers(port: int, path: str, tls: CertificateFiles | None = None) -> bool:
    scheme, authority = ("https", str(tls.ca)) if tls else ("http", None)
    with urllib3.PoolManager(timeout=2.0, retries=False, ca_certs=authority) as pool:
        try:
            return pool.request("GET", f"{scheme}://127.0.0.1:{port}{path}").status == 200
        except urllib3.exceptions.HTTPError:
            return False
