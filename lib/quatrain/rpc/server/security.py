"""The protection of a server, by its configuration: tokens, certificates, and the refusal to serve without them."""

from collections.abc import Mapping

from quatrain.config import ProcessConfig
from quatrain.errors import InvalidInput
from quatrain.rpc.addresses import is_loopback
from quatrain.rpc.certificates import CertificateFiles, Certificates, ServerTls
from quatrain.rpc.server.access import Access, Role
from quatrain.rpc.server.tokens import TokenFile

_WRONG = "INVALID_CONFIGURATION"


def access_of(config: ProcessConfig, roles: Mapping[str, Role]) -> Access:
    """Return who may call a public server. Raises InvalidInput when the file of tokens is wrong."""
    path = config.auth.tokens_file
    return Access(roles, None if path is None else TokenFile(path))


def server_tls(config: ProcessConfig, *, public: bool) -> ServerTls | None:
    """Return TLS of the server, None without certificates. Services demand a client certificate; the public API
    demands a token, and a certificate only if `tls.api_client_ca` says so. Raises InvalidInput."""
    tls = config.tls
    if not public:
        if tls.cert is None:
            return None
        return ServerTls(Certificates(CertificateFiles(tls.cert, tls.key, tls.ca)), require_client=True)
    cert, key = (tls.api_cert, tls.api_key) if tls.api_cert is not None else (tls.cert, tls.key)
    if cert is None:
        return None
    files = CertificateFiles(cert, key, tls.api_client_ca)
    return ServerTls(Certificates(files), require_client=files.ca is not None)


def check_exposure(config: ProcessConfig, name: str, *, public: bool) -> None:
    """Raise InvalidInput when others could reach the server and nothing protects it."""
    host = config.server.host
    if is_loopback(host):
        return
    if public and config.auth.tokens_file is None:
        raise InvalidInput(
            f"{name} does not serve its API on {host}, where others can reach it, without tokens: set "
            "auth.tokens_file (`quatrain token create` makes a token), or server.host=127.0.0.1",
            reason=_WRONG,
        )
    encrypted = config.tls.cert is not None or (public and config.tls.api_cert is not None)
    if not encrypted and not config.server.insecure:
        raise InvalidInput(
            f"{name} does not serve on {host}, where others can reach it, without TLS: set tls.cert, tls.key and "
            "tls.ca, or server.host=127.0.0.1, or, where the network itself is closed to others, server.insecure=true",
            reason=_WRONG,
        )
