from pathlib import Path

import pytest

from quatrain.errors import InvalidInput, PermissionRefused, Unavailable
from quatrain.local.home import (
    Endpoint,
    find_endpoint,
    find_token,
    read_endpoint,
    remove_endpoint,
    state_folder,
    write_endpoint,
)


def test_the_state_folder_is_the_named_one_else_beside_the_environment_else_the_users() -> None:
    assert state_folder({"QUATRAIN_HOME": "/x/y"}, "/a/.venv") == Path("/x/y")
    assert state_folder({}, "/a/.venv") == Path("/a/.quatrain")
    assert state_folder({"XDG_STATE_HOME": "/s"}, "/usr") == Path("/s/quatrain")
    assert state_folder({}, "/usr") == Path.home() / ".local" / "state" / "quatrain"


def test_an_endpoint_is_written_read_and_removed(tmp_path: Path) -> None:
    endpoint = Endpoint("127.0.0.1:5", "http://127.0.0.1:6", str(tmp_path / "token"))

    write_endpoint(tmp_path / "home", endpoint)

    assert read_endpoint(tmp_path / "home") == endpoint
    assert find_endpoint({"QUATRAIN_HOME": str(tmp_path / "home")}) == endpoint
    remove_endpoint(tmp_path / "home")
    remove_endpoint(tmp_path / "home")
    assert read_endpoint(tmp_path / "home") is None


def test_the_environment_goes_first(tmp_path: Path) -> None:
    write_endpoint(tmp_path, Endpoint("127.0.0.1:5"))

    environment = {"QUATRAIN_HOME": str(tmp_path), "QUATRAIN_ENDPOINT": "other:7", "QUATRAIN_TOKEN": "t"}

    assert find_endpoint(environment) == Endpoint("other:7")
    assert find_token(find_endpoint(environment), environment) == "t"


def test_no_stack_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="quatrain up"):
        find_endpoint({"QUATRAIN_HOME": str(tmp_path)})


@pytest.mark.parametrize("text", ["{", "[]", '{"port": 1}', "7"])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "endpoint.json").write_text(text)

    with pytest.raises(InvalidInput, match=r"endpoint\.json is damaged"):
        read_endpoint(tmp_path)


def test_the_token_is_read_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("abc\n")

    assert find_token(Endpoint("h:1", None, str(tmp_path / "token")), {}) == "abc"
    assert find_token(Endpoint("h:1"), {}) is None
    with pytest.raises(PermissionRefused, match="cannot be read"):
        find_token(Endpoint("h:1", None, str(tmp_path / "none")), {})
