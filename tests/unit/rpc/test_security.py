"""What a process refuses to serve without."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.servers.certificates import Authority

from quatrain.config import load_config
from quatrain.errors import InvalidInput
from quatrain.rpc.addresses import is_loopback
from quatrain.rpc.client.channel import channel_tls
from quatrain.rpc.server.access import Role
from quatrain.rpc.server.security import access_of, check_exposure, server_tls
from quatrain.rpc.server.server import run_server
from quatrain.rpc.server.tokens import line_of, new_token

OPEN = "--server.host=0.0.0.0"


def exposed(*flags: str, public: bool) -> str:
    """The refusal; empty when it would serve."""
    try:
        check_exposure(load_config("p", flags, {}).config, "the process", public=public)
    except InvalidInput as error:
        return error.message
    return ""


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("[::]", False),
        ("", False),
        ("10.0.0.1", False),
        ("localhost.example.com", False),
        ("127.0.0.1.example.com", False),
    ],
)
def test_what_only_this_machine_reaches(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("flags", "public", "refusal"),
    [
        ((), True, ""),
        ((), False, ""),
        ((OPEN,), True, "without tokens: set auth.tokens_file"),
        ((OPEN, "--server.insecure=true"), True, "without tokens"),
        ((OPEN, "--tls.api-cert=c", "--tls.api-key=k"), True, "without tokens"),
        ((OPEN, "--auth.tokens-file=t"), True, "without TLS: set tls.cert"),
        ((OPEN, "--auth.tokens-file=t", "--server.insecure=true"), True, ""),
        ((OPEN, "--auth.tokens-file=t", "--tls.api-cert=c", "--tls.api-key=k"), True, ""),
        ((OPEN,), False, "without TLS"),
        ((OPEN, "--tls.api-cert=c", "--tls.api-key=k"), False, "without TLS"),
        ((OPEN, "--server.insecure=true"), False, ""),
        ((OPEN, "--tls.cert=c", "--tls.key=k", "--tls.ca=a"), False, ""),
    ],
)
def test_others_reach_only_what_is_protected(flags: Sequence[str], public: bool, refusal: str) -> None:
    message = exposed(*flags, public=public)

    assert (refusal in message) if refusal else message == ""


def test_a_server_that_would_be_open_does_not_start() -> None:
    config = load_config("orchestrator", [OPEN], {}).config

    with pytest.raises(InvalidInput, match=r"does not serve its API on 0\.0\.0\.0"):
        asyncio.run(run_server(config, "orchestrator", lambda _: [], roles={}))
    with pytest.raises(InvalidInput, match=r"generation does not serve on 0\.0\.0\.0"):
        asyncio.run(run_server(config, "generation", lambda _: []))


def test_the_api_and_the_services_have_certificates_of_their_own(tmp_path: Path) -> None:
    inside, outside = Authority.make(tmp_path / "inside"), Authority.make(tmp_path / "outside")
    service, api = inside.issue("service"), outside.issue("api")
    flags = [f"--tls.cert={service.cert}", f"--tls.key={service.key}", f"--tls.ca={service.ca}"]
    own = [*flags, f"--tls.api-cert={api.cert}", f"--tls.api-key={api.key}"]

    def public(flags: list[str]) -> tuple[bytes | None, bool]:
        tls = server_tls(load_config("o", flags, {}).config, public=True)
        assert tls is not None
        return tls.certificates.current().chain, tls.require_client

    assert service.cert is not None
    assert api.cert is not None
    assert public(flags) == (service.cert.read_bytes(), False)
    assert public(own) == (api.cert.read_bytes(), False)
    assert public([*own, f"--tls.api-client-ca={outside.ca}"]) == (api.cert.read_bytes(), True)
    config = load_config("o", own, {}).config
    channel, server = channel_tls(config), server_tls(config, public=False)
    assert channel is not None
    assert server is not None
    assert channel.certificates.current().chain == service.cert.read_bytes()
    assert (channel.server_name, server.require_client) == ("quatrain", True)
    plain = load_config("o", [], {}).config
    assert (channel_tls(plain), server_tls(plain, public=True), server_tls(plain, public=False)) == (None, None, None)


def test_tokens_are_read_at_the_start(tmp_path: Path) -> None:
    token, entry = new_token("ana", "viewer")
    (tmp_path / "tokens.yaml").write_text(line_of(entry))
    config = load_config("o", [f"--auth.tokens-file={tmp_path / 'tokens.yaml'}"], {}).config

    principal = access_of(config, {}).authenticate([("authorization", f"Bearer {token}")])

    assert (principal.name, principal.role) == ("ana", Role.VIEWER)
    with pytest.raises(InvalidInput, match="cannot be read"):
        access_of(load_config("o", ["--auth.tokens-file=/nowhere"], {}).config, {})
