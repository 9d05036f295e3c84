import datetime
import json
import logging
from pathlib import Path

import pytest
from tests.servers.certificates import MountedSecret

from quatrain.errors import InvalidInput, Unauthenticated
from quatrain.rpc.server.access import Role
from quatrain.rpc.server.tokens import TokenFile, hash_of, line_of, new_token, parse_tokens

PAST = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
DIGEST = "0" * 64


def write(path: Path, *lines: str) -> None:
    path.write_text("\n".join(lines) + "\n")


def test_a_token_stands_for_its_principal_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    ana, entry = new_token("ana", "submitter", tenants=["bo"])
    other, other_entry = new_token("grafana", "viewer", tenants=["*"])
    write(tmp_path / "tokens.yaml", line_of(entry), line_of(other_entry))

    tokens = TokenFile(tmp_path / "tokens.yaml")

    found = tokens.principal_of(ana)
    assert (found.name, found.role, found.tenants) == ("ana", Role.SUBMITTER, frozenset({"bo"}))
    assert tokens.principal_of(other).may_read("anybody")
    assert len(ana) >= 40
    assert ana not in (tmp_path / "tokens.yaml").read_text()


@pytest.mark.parametrize("wrong", ["qt_guess", "", "qt_" + "x" * 10_000, "ünïcödé", "\ud800"])
def test_a_wrong_token_is_refused_and_not_repeated(tmp_path: Path, wrong: str) -> None:
    write(tmp_path / "tokens.yaml", line_of(new_token("ana", "admin")[1]))

    with pytest.raises(Unauthenticated) as caught:
        TokenFile(tmp_path / "tokens.yaml").principal_of(wrong)

    assert not wrong or wrong not in str(caught.value)


def test_an_expired_token_says_so(tmp_path: Path) -> None:
    token, entry = new_token("ana", "admin", expires=PAST)
    write(tmp_path / "tokens.yaml", line_of(entry))

    with pytest.raises(Unauthenticated, match="of 'ana' has expired"):
        TokenFile(tmp_path / "tokens.yaml").principal_of(token)


@pytest.mark.parametrize("expires", ["2999-01-31", "2999-01-31T12:00:00Z", "'2999-01-31T12:00:00+02:00'", "null"])
def test_moments_in_the_ways_people_write_them(expires: str) -> None:
    (entry,) = parse_tokens(f"- {{name: a, role: viewer, sha256: '{DIGEST}', expires: {expires}}}".encode(), "f")

    assert (entry.expires is None) is (expires == "null")


def test_tokens_change_while_the_server_runs(tmp_path: Path) -> None:
    first, first_entry = new_token("ana", "submitter")
    second, second_entry = new_token("ana", "submitter")
    path = tmp_path / "tokens.yaml"
    write(path, line_of(first_entry))
    tokens = TokenFile(path, every=0.0)

    write(path, line_of(first_entry), line_of(second_entry))
    assert tokens.principal_of(first) == tokens.principal_of(second)
    write(path, line_of(second_entry))

    tokens.principal_of(second)
    with pytest.raises(Unauthenticated, match="taken back"):
        tokens.principal_of(first)


def test_the_swap_of_a_mounted_secret_is_a_change(tmp_path: Path) -> None:
    first, first_entry = new_token("ana", "submitter")
    second, second_entry = new_token("ana", "submitter")
    secret = MountedSecret(tmp_path / "mount")
    secret.put({"tokens.yaml": line_of(first_entry)})
    tokens = TokenFile(tmp_path / "mount" / "tokens.yaml", every=0.0)
    tokens.principal_of(first)

    secret.put({"tokens.yaml": line_of(second_entry)})

    tokens.principal_of(second)
    with pytest.raises(Unauthenticated):
        tokens.principal_of(first)


@pytest.mark.parametrize("damage", ["", "{", "tokens: 1", "- {name: ana}"])
def test_a_damaged_file_changes_nothing_until_it_is_whole(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    token, entry = new_token("ana", "submitter")
    path = tmp_path / "tokens.yaml"
    write(path, line_of(entry))
    tokens = TokenFile(path, every=0.0)

    path.write_text(damage)
    with caplog.at_level(logging.ERROR):
        assert tokens.principal_of(token).name == "ana"
    assert "stay valid" in caplog.text
    path.unlink()
    tokens.principal_of(token)
    path.write_text("[]")

    with pytest.raises(Unauthenticated):
        tokens.principal_of(token)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "holds no token"),
        ("", "must hold a list"),
        ("- a\n- {", r"not YAML \(line 2\)"),
        ("- 7", "entry 1 of .* is not a mapping"),
        (f"- {{name: a b, role: viewer, sha256: '{DIGEST}'}}", "name 'a b'"),
        (f"- {{name: a, role: root, sha256: '{DIGEST}'}}", "viewer, submitter, admin"),
        (f"- {{name: a, role: [viewer], sha256: '{DIGEST}'}}", "viewer, submitter, admin"),
        ("- {name: a, role: viewer, sha256: secret}", "64 lower-case hex digits"),
        (f"- {{name: a, role: viewer, sha256: '{DIGEST}', tenants: b}}", "list of names"),
        (f"- {{name: a, role: viewer, sha256: '{DIGEST}', expires: soon}}", "expires must be"),
        (f"- {{name: a, role: viewer, sha256: '{DIGEST}', token: x}}", "unknown keys token"),
    ],
)
def test_a_wrong_file_is_refused_at_the_start(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "tokens.yaml").write_text(text)

    with pytest.raises(InvalidInput, match=message) as caught:
        TokenFile(tmp_path / "tokens.yaml")

    assert DIGEST not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"none\.yaml cannot be read"):
        TokenFile(tmp_path / "none.yaml")


def test_json_is_taken_too(tmp_path: Path) -> None:
    token, entry = new_token("ana", "viewer")
    (tmp_path / "tokens.json").write_text(json.dumps([entry]))

    assert TokenFile(tmp_path / "tokens.json").principal_of(token).name == "ana"
    assert entry["sha256"] == hash_of(token)
