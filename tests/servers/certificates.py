"""Authorities and certificates for tests; on an elliptic curve, which takes a millisecond."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from quatrain.rpc.certificates import CertificateFiles

HOSTS = ("quatrain", "localhost", "127.0.0.1")
# Certificates are valid from before now on, so that one can have expired.
AGE = timedelta(days=7)
_USES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


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
        key = made._new_key(name)
        usage = dict.fromkeys(_USES, False) | {"key_cert_sign": True, "crl_sign": True}
        started = (
            _started(name, name, key.public_key(), key.public_key(), days=2)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(**usage), critical=True)
        )
        made.ca.write_bytes(_signed(started, key))
        return made

    def issue(self, name: str, *, days: int = 1, hosts: Sequence[str] = HOSTS) -> CertificateFiles:
        """A certificate for servers of these names and addresses, and for clients; with `days` -1 it has expired."""
        key, own = self._new_key(name), self._key(self.name)
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        started = _started(name, self.name, key.public_key(), own.public_key(), days=days)
        cert = self.folder / f"{name}.crt"
        cert.write_bytes(_signed(started.add_extension(names, critical=False), own))
        return CertificateFiles(cert, self.folder / f"{name}.key", self.ca)

    def _new_key(self, name: str) -> ec.EllipticCurvePrivateKey:
        key = ec.generate_private_key(ec.SECP256R1())
        path = self.folder / f"{name}.key"
        path.touch(mode=0o600)
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return key

    def _key(self, name: str) -> ec.EllipticCurvePrivateKey:
        key = serialization.load_pem_private_key((self.folder / f"{name}.key").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return key


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


def _started(
    subject: str, issuer: str, key: ec.EllipticCurvePublicKey, issuer_key: ec.EllipticCurvePublicKey, *, days: int
) -> x509.CertificateBuilder:
    """What every certificate says."""
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_common_name(subject))
        .issuer_name(_common_name(issuer))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - AGE)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _signed(certificate: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> bytes:
    return certificate.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)
