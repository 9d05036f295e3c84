"""What a client shows and checks, against real servers with tokens and certificates."""

import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.servers.certificates import Authority
from tests.unit.client.fake_api import FakeApi

from quatrain.client import CertificateFiles, Client
from quatrain.errors import InvalidInput, PermissionRefused, QuatrainError, Unauthenticated, Unavailable
from quatrain.local.home import Endpoint, allows_plaintext, find_certificates, find_token
from quatrain.rpc.certificates import Certificates, ServerTls
from quatrain.rpc.server.access import Access, Role
from quatrain.rpc.server.tokens import TokenFile, line_of, new_token

ROLES = {"/quatrain.v1.JobService/ListJobs": Role.VIEWER, "/quatrain.v1.JobService/CancelJob": Role.SUBMITTER}
TOKEN, ENTRY = new_token("bo", "viewer")


@pytest.fixture
def access(tmp_path: Path) -> Access:
    (tmp_path / "tokens.yaml").write_text(line_of(ENTRY))
    return Access(ROLES, TokenFile(tmp_path / "tokens.yaml"))


@pytest.fixture
def api(access: Access) -> Iterator[FakeApi]:
    with FakeApi(access=access) as running:
        yield running


def test_the_token_opens_what_its_role_opens(api: FakeApi) -> None:
    with Client(api.target, token=TOKEN) as client:
        assert client.list() == []
        with pytest.raises(PermissionRefused, match="needs the role submitter"):
            client.cancel("j")
    for token in (None, "qt_wrong"):
        with Client(api.target, token=token) as client, pytest.raises(Unauthenticated, match="token") as caught:
            client.list()
        assert "qt_wrong" not in "".join(traceback.format_exception(caught.value))


def test_a_token_for_the_local_stack_goes_nowhere_else(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUATRAIN_TOKEN", TOKEN)

    with Client(api.target) as client, pytest.raises(Unauthenticated):
        client.list()
    monkeypatch.setenv("QUATRAIN_ENDPOINT", api.target)
    with Client() as client:
        assert client.list() == []


@pytest.mark.parametrize(
    "target", ["10.0.0.1:50050", "quatrain.example.com:443", "http://10.0.0.1:1", "127.0.0.1:1,10.0.0.1:2"]
)
def test_a_token_is_not_sent_where_others_could_read_it(target: str) -> None:
    with pytest.raises(InvalidInput, match="in plaintext") as caught:
        Client(target, token=TOKEN)

    assert TOKEN not in str(caught.value)
    Client(target, token=TOKEN, insecure=True).close()
    Client(target).close()
    Client("https://10.0.0.1:50050", token=TOKEN).close()


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "ünï"])
def test_what_is_no_token_is_said_without_showing_it(token: str) -> None:
    with pytest.raises(InvalidInput, match="QUATRAIN_TOKEN") as caught:
        Client("127.0.0.1:1", token=token)

    assert token not in str(caught.value)


def test_tls_with_an_authority_of_ones_own(access: Access, tmp_path: Path) -> None:
    authority, stranger = Authority.make(tmp_path / "a"), Authority.make(tmp_path / "b", "stranger")
    tls = ServerTls(Certificates(authority.issue("api")), require_client=True)
    own = authority.issue("laptop")
    with FakeApi(tls, access) as api:
        with Client(f"https://{api.target}", token=TOKEN, certificates=own) as client:
            assert client.list() == []
        wrong = {
            "no certificate": CertificateFiles(ca=authority.ca),
            "authority that is not the server's": CertificateFiles(own.cert, own.key, stranger.ca),
        }
        for files in wrong.values():
            client = Client(f"https://{api.target}", token=TOKEN, certificates=files)
            with client, pytest.raises(Unavailable, match=f"https://{api.target}"):
                client.list()


def test_certificates_and_tokens_are_found_in_the_environment(tmp_path: Path) -> None:
    endpoint = Endpoint("https://h:1", None, str(tmp_path / "of-the-stack"), "/stack/ca.crt")
    (tmp_path / "of-the-stack").write_text("stack\n")
    (tmp_path / "mine").write_text("mine\n")

    assert find_certificates(endpoint, {}) == CertificateFiles(ca=Path("/stack/ca.crt"))
    environment = {"QUATRAIN_CA": "/ca", "QUATRAIN_CERT": "/cert", "QUATRAIN_KEY": "/key"}
    assert find_certificates(endpoint, environment) == CertificateFiles(Path("/cert"), Path("/key"), Path("/ca"))
    assert find_token(endpoint, {}) == "stack"
    assert find_token(endpoint, {"QUATRAIN_TOKEN_FILE": str(tmp_path / "mine")}) == "mine"
    assert find_token(endpoint, {"QUATRAIN_TOKEN_FILE": str(tmp_path / "mine"), "QUATRAIN_TOKEN": "t"}) == "t"
    assert [allows_plaintext({"QUATRAIN_INSECURE": value}) for value in ("1", "true", "0", "")] == [
        True,
        True,
        False,
        False,
    ]


def test_a_certificate_without_its_key_is_refused(tmp_path: Path) -> None:
    files = CertificateFiles(cert=tmp_path / "cert.pem")

    with pytest.raises(QuatrainError, match="needs its key"):
        Client("https://127.0.0.1:1", certificates=files)
