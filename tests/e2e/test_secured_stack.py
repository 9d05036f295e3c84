"""A stack of real processes with tokens, mutual TLS between them and TLS at the API, all exchanged while a job runs."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from tests.e2e.stack import Stack, await_step, finish, running_stack, wait_until
from tests.e2e.tasks import changed, count_symbol
from tests.servers.binaries import GRPCURL, require_program
from tests.servers.certificates import Authority, MountedSecret

from quatrain.client import CertificateFiles, Client
from quatrain.errors import NotFound, QuatrainError, Unauthenticated
from quatrain.local.home import read_endpoint
from quatrain.rpc.server.tokens import TokenDocument, line_of, new_token
from quatrain.v1 import generation_pb2, generation_pb2_grpc

# Everyday tests prove the same parts over real sockets inside one process: tests/integration/rpc, .../test_tenants.py.
pytestmark = pytest.mark.slow

STEPS = 12
ROTATION_SECONDS = 60.0
PLANTED = "planted-secret-of-the-store"


@pytest.fixture(scope="session")
def grpcurl() -> Path:
    """The program, built if need be."""
    return require_program(GRPCURL)


@dataclass(frozen=True)
class Secured:
    """The stack, its mounted secrets and its tokens by person."""

    stack: Stack
    authority: Authority
    tls: MountedSecret
    tokens: MountedSecret
    people: dict[str, tuple[str, TokenDocument]]

    def client(self, token: str) -> Client:
        return Client(self.stack.target, token=token, certificates=CertificateFiles(ca=self.authority.ca))

    def write_tokens(self, *people: str) -> None:
        self.tokens.put({"tokens.yaml": "".join(f"{line_of(self.people[name][1])}\n" for name in people)})

    def token(self, name: str) -> str:
        return self.people[name][0]


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    authority = Authority.make(folder / "authority")
    people = {name: new_token(name, "submitter") for name in ("ana", "eve")} | {"new": new_token("ana", "submitter")}
    tls, tokens = MountedSecret(folder / "tls"), MountedSecret(folder / "tokens")
    tls.put_certificate(authority.issue("first"))
    (folder / "ana").write_text(people["ana"][0])
    environment = {
        "QUATRAIN_TLS__CERT": str(tls.files.cert),
        "QUATRAIN_TLS__KEY": str(tls.files.key),
        "QUATRAIN_TLS__CA": str(tls.files.ca),
        "QUATRAIN_AUTH__TOKENS_FILE": str(tokens.root / "tokens.yaml"),
        "QUATRAIN_TOKEN_FILE": str(folder / "ana"),
        "QUATRAIN_STORAGE__SECRET_KEY": PLANTED,
    }
    empty = Secured(Stack(folder / "home"), authority, tls, tokens, people)
    empty.write_tokens("ana", "eve")
    with running_stack(folder / "home", environment=environment) as stack:
        yield Secured(stack, authority, tls, tokens, people)


def test_a_job_under_tokens_and_certificates_that_change(secured: Secured, tmp_path: Path) -> None:
    stack = secured.stack
    with secured.client(secured.token("ana")) as client, secured.client(secured.token("eve")) as other:
        job = client.submit(changed(count_symbol(tmp_path), ppo__steps=STEPS))
        await_step(client, job, 2)
        secured.tls.put_certificate(secured.authority.issue("second"))
        secured.write_tokens("new", "eve")
        wait_until(lambda: refused(client), ROTATION_SECONDS, "the token that was taken back still opens the API")
        with secured.client(secured.token("new")) as renewed:
            finished = finish(stack, renewed, job)
        with pytest.raises(NotFound):
            other.get(job.id)

    assert (finished.owner, finished.attempt, finished.policy_version) == ("ana", 1, STEPS)
    logs = stack.logs(lines=100_000)
    assert "certificates read again" in logs
    assert "tokens read again" in logs
    kept = b"".join(path.read_bytes() for path in stack.home.rglob("*") if path.is_file() and not path.is_symlink())
    secrets = [
        PLANTED,
        "PRIVATE KEY",
        *(str(each) for t, entry in secured.people.values() for each in (t, entry["sha256"])),
    ]
    for secret in secrets:
        assert secret.encode() not in kept, "in a log, an event, an object or Redis's file"


def refused(client: Client) -> bool:
    try:
        client.list()
    except Unauthenticated:
        return True
    return False


def test_the_command_line_finds_token_and_certificate_by_itself(secured: Secured) -> None:
    stack = secured.stack
    endpoint = read_endpoint(stack.home)

    assert endpoint is not None
    assert endpoint.api.startswith("https://127.0.0.1:")
    Path(endpoint.token_file or "").write_text(secured.token("eve"))
    listed = stack.run_cli("job", "list", "-o", "name")
    assert (listed.code, listed.stdout) == (0, "")
    Path(endpoint.token_file or "").write_text("qt_nobodys")
    denied = stack.run_cli("job", "list")
    assert denied.code == 5
    assert "the token is not valid" in denied.stderr


def test_a_foreign_tool_shows_the_token_as_metadata(secured: Secured, grpcurl: Path) -> None:
    target = secured.stack.target.removeprefix("https://")

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [str(grpcurl), "-cacert", str(secured.authority.ca), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60.0, check=False)

    authorization = ("-H", f"authorization: Bearer {secured.token('eve')}")
    listed = run(*authorization, target, "list")
    assert "quatrain.v1.JobService" in listed.stdout, listed.stderr
    called = run(*authorization, target, "quatrain.v1.JobService/ListJobs")
    assert json.loads(called.stdout) == {}, called.stderr
    assert "Unauthenticated" in run(target, "list").stderr
    assert "SERVING" in run(*authorization, target, "grpc.health.v1.Health/Check").stdout


def test_services_take_no_call_from_outside(secured: Secured) -> None:
    """Neither in plaintext nor from a client that has only the authority."""
    port = secured.stack.processes()["generation-0"].port
    ca = secured.authority.ca.read_bytes()
    for credentials in (None, grpc.ssl_channel_credentials(ca)):
        address, options = f"127.0.0.1:{port}", [("grpc.ssl_target_name_override", "quatrain")]
        channel = grpc.secure_channel(address, credentials, options) if credentials else grpc.insecure_channel(address)
        with channel, pytest.raises(grpc.RpcError) as caught:
            generation_pb2_grpc.GenerationServiceStub(channel).GetGenerationCapabilities(
                generation_pb2.GetGenerationCapabilitiesRequest(), timeout=10.0
            )
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    with pytest.raises(QuatrainError), Client(f"127.0.0.1:{port}") as client:
        client.list()
