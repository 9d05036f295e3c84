"""Two releases, in one namespace or in two, share nothing."""

import base64
from pathlib import Path

import pytest
import yaml
from tests.chart.matrix import SWITCHES
from tests.chart.rendering import Rendered, render
from tests.chart.test_network import policies_of

from quatrain.rpc.certificates import CertificateFiles, Certificates
from quatrain.rpc.server.tokens import hash_of, parse_tokens


@pytest.mark.parametrize("switch", ["tls", "keda", "monitoring"])
def test_two_releases_in_one_namespace(switch: str) -> None:
    one, two = (render(SWITCHES[switch], release=name) for name in ("quatrain", "second"))
    assert not one.names & two.names
    for mine, other in ((one, two), (two, one)):
        for service in mine.of("Service"):
            assert not any(service["spec"]["selector"].items() <= pod.labels.items() for pod in other.pods)
        for pod in other.pods:
            assert not policies_of(mine, pod)
        assert not addresses(mine) & addresses(other)
        assert not mounted(mine) & mounted(other)


def test_two_releases_in_two_namespaces() -> None:
    one, two = (render(namespace=name) for name in ("first", "second"))
    assert not addresses(one) & addresses(two)
    assert all(".first.svc:" in address for address in addresses(one))


def test_the_names_of_one_release_may_be_chosen() -> None:
    rendered = render({"fullnameOverride": "other"})
    assert all(name.startswith("other") for _, name in rendered.names)


def test_token_opens_the_api() -> None:
    data = render().get("Secret", "quatrain-tokens")["data"]
    token = base64.b64decode(data["token"]).decode()
    (entry,) = parse_tokens(base64.b64decode(data["tokens.yaml"]), "the Secret")
    assert entry.sha256 == hash_of(token)
    assert (entry.principal.name, entry.principal.role.label) == ("admin", "admin")
    # 43 of 62 letters and digits: more than 256 bits less the loss of the alphabet, as `quatrain token create` has.
    assert token.startswith("qt_")
    assert len(token) == 46


def test_passwords_differ_between_releases() -> None:
    one, two = (render(release=name) for name in ("one", "two"))
    for part, key in (("tokens", "token"), ("valkey", "password"), ("minio", "secret-key")):
        first, second = (
            each.get("Secret", f"{name}-quatrain-{part}")["data"][key] for each, name in ((one, "one"), (two, "two"))
        )
        assert first != second


def test_valkey_and_its_users_have_one_password() -> None:
    data = {
        key: base64.b64decode(text).decode() for key, text in render().get("Secret", "quatrain-valkey")["data"].items()
    }
    assert data["auth.conf"] == f"requirepass {data['password']}\n"
    assert data["url"] == f"redis://:{data['password']}@quatrain-valkey.default.svc:6379/0"


def test_own_certificate_is_one_that_services_take(tmp_path: Path) -> None:
    data = render(SWITCHES["tls"]).get("Secret", "quatrain-tls")["data"]
    for key, text in data.items():
        (tmp_path / key).write_bytes(base64.b64decode(text))
    files = CertificateFiles(tmp_path / "tls.crt", tmp_path / "tls.key", tmp_path / "ca.crt")
    assert Certificates(files).current() is not None


def addresses(rendered: Rendered) -> set[str]:
    """Where the release's processes go."""
    found: set[str] = set()
    for each in rendered.of("ConfigMap"):
        document = yaml.safe_load(each["data"].get("quatrain.yaml", "{}"))
        for section in ("orchestrator", "rollout", "learner"):
            found |= {str(v).removeprefix("dns:///") for v in document.get(section, {}).values() if ":5" in str(v)}
        if "storage" in document:
            found.add(document["storage"]["endpoint"])
    return found


def mounted(rendered: Rendered) -> set[str]:
    volumes = [volume for pod in rendered.pods for volume in pod.spec["volumes"]]
    secrets = {volume["secret"]["secretName"] for volume in volumes if "secret" in volume}
    return secrets | {volume["configMap"]["name"] for volume in volumes if "configMap" in volume}
