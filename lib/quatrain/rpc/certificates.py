"""Certificates of a process: PEM files that are read again when they change, in the forms that gRPC needs.

A server asks for its certificate at every handshake, so a new one serves the next connection. A channel of gRPC keeps
the certificate that it was opened with, hence `quatrain.rpc.client.rotation`.
"""

import ssl
import threading
from dataclasses import dataclass
from pathlib import Path

import grpc

from quatrain.errors import InvalidInput
from quatrain.process.files import POLL_SECONDS, WatchedFiles
from quatrain.telemetry.logging import get_logger

_log = get_logger(__name__)


@dataclass(frozen=True)
class CertificateFiles:
    """Paths of PEM files: the own chain and its key, both or none, and the authorities that peers are checked against.

    Without `ca` a client trusts the authorities that gRPC brings, and a server asks its clients for no certificate.
    """

    cert: Path | None = None
    key: Path | None = None
    ca: Path | None = None


@dataclass(frozen=True, eq=False)
class Pem:
    """The content of the files at one moment."""

    chain: bytes | None
    key: bytes | None
    ca: bytes | None


class Certificates:
    """The certificates of one identity. Thread-safe: gRPC asks from its own threads."""

    def __init__(self, files: CertificateFiles, *, every: float = POLL_SECONDS) -> None:
        """Read the files. Raises InvalidInput when one is missing or no PEM, or key and certificate do not match."""
        if (files.cert is None) != (files.key is None):
            raise InvalidInput("a certificate needs its key and a key its certificate: give both or none")
        self._files = files
        self._watched = WatchedFiles([path for path in (files.cert, files.key, files.ca) if path is not None], every)
        self._lock = threading.Lock()
        self._current = self._read()

    def current(self) -> Pem:
        """Return the newest valid certificates. Files that do not match each other, as during a change, are ignored
        until they change again."""
        with self._lock:
            if self._watched.changed():
                try:
                    self._current = self._read()
                    _log.info("certificates read again", cert=str(self._files.cert), ca=str(self._files.ca))
                except InvalidInput as error:
                    _log.error("the certificates from before stay in use", error=error.message)
            return self._current

    def _read(self) -> Pem:
        contents = self._watched.read()
        _check(self._files)
        if self._watched.read() != contents:
            raise InvalidInput(f"{self._files.cert} and what belongs to it are being changed right now")
        parts = iter(contents)
        chain, key, ca = (
            next(parts) if path is not None else None for path in (self._files.cert, self._files.key, self._files.ca)
        )
        return Pem(chain, key, ca)


def _check(files: CertificateFiles) -> None:
    """Raise InvalidInput for what gRPC would not explain, or would end the process for."""
    try:
        if files.cert is not None:
            # The password is for keys that are encrypted; without it OpenSSL would ask the terminal.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(files.cert, files.key, password=lambda: "")
    except (OSError, ValueError) as error:
        raise InvalidInput(
            f"{files.cert} and {files.key} are no PEM certificate with its unencrypted key ({_reason(error)})"
        ) from error
    try:
        if files.ca is not None:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(files.ca)
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{files.ca} holds no PEM certificates of authorities ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)


@dataclass(frozen=True)
class ServerTls:
    """TLS of a server. `require_client`: only clients with a certificate of the `ca` may connect."""

    certificates: Certificates
    require_client: bool

    def credentials(self) -> grpc.ServerCredentials:
        """Ask for the newest certificate at every handshake."""
        in_use = self.certificates.current()

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            nonlocal in_use
            newest = self.certificates.current()
            if newest is in_use:
                return None
            in_use = newest
            return _configuration(newest)

        credentials: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
            _configuration(in_use),
            fetch,  # type: ignore[arg-type]  # None, for no change, is what gRPC documents
            require_client_authentication=self.require_client,
        )
        return credentials


def _configuration(pem: Pem) -> grpc.ServerCertificateConfiguration:
    assert pem.key is not None, "a server has a certificate"
    assert pem.chain is not None, "and its key"
    configuration: grpc.ServerCertificateConfiguration = grpc.ssl_server_certificate_configuration(
        [(pem.key, pem.chain)], root_certificates=pem.ca
    )
    return configuration


@dataclass(frozen=True)
class ChannelTls:
    """TLS of a channel. `server_name`: the name that the server's certificate must have; empty: the called host."""

    certificates: Certificates
    server_name: str = ""
