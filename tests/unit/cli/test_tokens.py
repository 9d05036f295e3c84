import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tests.unit.client.fake_api import FakeApi

from quatrain.errors import Unauthenticated
from quatrain.rpc.server.access import Access, Role
from quatrain.rpc.server.tokens import TokenFile, hash_of, line_of, new_token

Cli = Callable[..., tuple[int, str, str]]


def test_a_token_is_shown_once_and_its_file_holds_the_hash(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "tokens.yaml"

    code, out, err = cli("token", "create", "--name", "ana", "--role", "submitter", "--file", str(file), "-o", "name")
    token = out.strip()

    assert code == 0
    assert "not shown again" in err
    assert token not in file.read_text() + err
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert TokenFile(file).principal_of(token).name == "ana"


def test_lines_are_added_to_what_is_there(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "tokens.yaml"
    first, entry = new_token("ana", "admin")
    file.write_text(f"# people\n{line_of(entry)}")
    file.chmod(0o640)

    code, out, _ = cli("token", "create", "--name", "x", "--role", "viewer", "--tenant", "ana", "--tenant", "*",
                       "--days", "30", "--file", str(file), "-o", "json")  # fmt: skip

    made = json.loads(out)
    assert code == 0
    assert yaml.safe_load(made["line"]) == [made["entry"]]
    assert made["entry"]["sha256"] == hash_of(made["token"])
    assert made["entry"]["tenants"] == ["ana", "*"]
    tokens = TokenFile(file)
    assert (tokens.principal_of(first).name, tokens.principal_of(made["token"]).name) == ("ana", "x")
    assert file.read_text().startswith("# people\n")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_without_a_file_the_line_is_printed(cli: Cli) -> None:
    code, out, err = cli("token", "create", "--name", "ana", "--role", "viewer")

    assert code == 0
    assert "- {name: ana, role: viewer, sha256: " in out
    assert "add the line" in err


@pytest.mark.parametrize(
    ("arguments", "content", "message"),
    [
        (("--name", "ana", "--role", "root"), "", "viewer, submitter, admin"),
        (("--name", "a b", "--role", "viewer"), "", "name 'a b'"),
        (("--name", "ana", "--role", "viewer"), "[]", "is not YAML"),
        (("--name", "ana", "--role", "viewer"), "x: 1\n", "with the new line"),
    ],
)
def test_what_cannot_be_leaves_the_file_alone(
    cli: Cli, tmp_path: Path, arguments: tuple[str, ...], content: str, message: str
) -> None:
    file = tmp_path / "tokens.yaml"
    file.write_text(content)

    code, _, err = cli("token", "create", *arguments, "--file", str(file))

    assert code == 3
    assert message in err
    assert file.read_text() == content
    assert os.listdir(tmp_path) == ["tokens.yaml"]


def test_the_command_line_takes_a_token_file(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token, entry = new_token("ana", "viewer")
    (tmp_path / "tokens.yaml").write_text(line_of(entry))
    (tmp_path / "mine").write_text(f"{token}\n")
    roles = {"/quatrain.v1.JobService/ListJobs": Role.VIEWER, "/quatrain.v1.JobService/CancelJob": Role.SUBMITTER}
    monkeypatch.setenv("QUATRAIN_TOKEN", "qt_wrong")
    with FakeApi(access=Access(roles, TokenFile(tmp_path / "tokens.yaml"))) as api:
        monkeypatch.setenv("QUATRAIN_ENDPOINT", api.target)

        assert cli("--token-file", str(tmp_path / "mine"), "job", "list", "-o", "name")[0] == 0
        refused = cli("job", "list")
        too_low = cli("--token-file", str(tmp_path / "mine"), "job", "cancel", "j")
        missing = cli("--token-file", str(tmp_path / "none"), "job", "list")

    assert refused[0] == too_low[0] == missing[0] == 5
    assert "set QUATRAIN_TOKEN, or --token-file" in refused[2]
    assert "needs the role submitter" in too_low[2]
    assert "none cannot be read" in missing[2]
    assert "qt_wrong" not in refused[2]
    assert os.environ["QUATRAIN_TOKEN"] == "qt_wrong"
    with pytest.raises(Unauthenticated):
        TokenFile(tmp_path / "tokens.yaml").principal_of("qt_wrong")
