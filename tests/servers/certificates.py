"""Authorities and certificates for tests, made by the `openssl` command; on an elliptic curve, which takes 10 ms."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from quatrain.rpc.certificates import CertificateFiles

CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
NAMES = "subjectAltName=DNS:quatrain,DNS:localhost,IP:127.0.0.1"


@dataclass(frozen=True)
class Authority:
    """A certificate authority in a folder of its own."""

    folder: Path
    name: str = "authority"

    @property
    def ca(self) -> Path:
        return self.folder / f"{self.name}.crt"

    @classmethod
    def make(cls, folder: Path, name: str = "authority") -> "Authority":
        folder.mkdir(parents=True, exist_ok=True)
        made = cls(folder, name)
        files = ("-keyout", str(folder / f"{name}.key"), "-out", str(made.ca))
        _openssl("req", "-x509", *CURVE, *files, "-days", "2", "-subj", f"/CN={name}")
        return made

    def issue(self, name: str, *, days: int = 1, names: str = NAMES) -> CertificateFiles:
        """A certificate for servers and clients; with `days` -1 it has expired."""
        cert, key, request = (self.folder / f"{name}.{suffix}" for suffix in ("crt", "key", "csr"))
        extensions = self.folder / "extensions"
        extensions.write_text(names)
        _openssl("req", *CURVE, "-keyout", str(key), "-out", str(request), "-subj", f"/CN={name}")
        authority = ("-CA", str(self.ca), "-CAkey", str(self.ca.with_suffix(".key")), "-CAcreateserial")
        files = ("-in", str(request), "-out", str(cert), "-extfile", str(extensions))
        _openssl("x509", "-req", *files, *authority, "-days", str(days))
        return CertificateFiles(cert, key, self.ca)


@dataclass(frozen=True)
class MountedSecret:
    """Files as Kubernetes mounts a Secret: links into `..data`, which is a link that is swapped as a whole."""

    root: Path

    @property
    def files(self) -> CertificateFiles:
        return CertificateFiles(self.root / "tls.crt", self.root / "tls.key", self.root / "ca.crt")

    def put(self, contents: dict[str, Path | str]) -> None:
        """Swaps all files at once."""
        number = len(list(self.root.glob("..version-*")))
        version = self.root / f"..version-{number}"
        version.mkdir(parents=True)
        for name, content in contents.items():
            if isinstance(content, Path):
                shutil.copy(content, version / name)
            else:
                (version / name).write_text(content)
            link = self.root / name
            if not link.is_symlink():
                link.symlink_to(Path("..data") / name)
        swap = self.root / "..data_tmp"
        swap.symlink_to(version.name)
        os.replace(swap, self.root / "..data")

    def put_certificate(self, files: CertificateFiles) -> None:
        assert files.cert is not None
        assert files.key is not None
        assert files.ca is not None
        self.put({"tls.crt": files.cert, "tls.key": files.key, "ca.crt": files.ca})


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=30)
