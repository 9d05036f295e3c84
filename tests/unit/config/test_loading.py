"""Where values come from, who wins, and what is said about wrong ones."""

from pathlib import Path

import pytest

from quatrain.config import load_config
from quatrain.errors import InvalidInput


def test_defaults_are_complete_and_immutable() -> None:
    loaded = load_config("generation", [], {})

    assert loaded.config.server.host == "127.0.0.1"
    assert set(loaded.sources.values()) == {"default"}
    with pytest.raises(ValueError, match="frozen"):
        loaded.config.server.port = 5


def test_yaml_is_overridden_by_environment_and_that_by_flags(tmp_path: Path) -> None:
    path = tmp_path / "q.yaml"
    path.write_text("server: {port: 1, host: 0.0.0.0, health_port: 7}\nlearner:\n  targets: [a:1, b:2]\n")
    environ = {"QUATRAIN_CONFIG": str(path), "QUATRAIN_SERVER__PORT": "2", "QUATRAIN_SERVER__HEALTH_PORT": "null"}

    loaded = load_config("generation", ["--server.port=3"], environ)

    assert loaded.config.server.port == 3
    assert loaded.config.server.host == "0.0.0.0"
    assert loaded.config.server.health_port is None
    assert loaded.config.learner.targets == ("a:1", "b:2")
    assert loaded.sources["server.port"] == "flag --server.port"
    assert loaded.sources["server.health_port"] == "environment QUATRAIN_SERVER__HEALTH_PORT"
    assert loaded.sources["server.host"] == f"file {path}"
    assert loaded.sources["server.port_file"] == "default"


def test_texts_become_the_fields_types() -> None:
    argv = ["--learner.targets", "a:1, b:2", "--reward.allow-code=true", "--rollout.idle=1.5", "--compute.cache-dir=/x"]

    config = load_config("reward", argv, {}).config

    assert config.learner.targets == ("a:1", "b:2")
    assert config.reward.allow_code is True
    assert config.rollout.idle == 1.5
    assert config.compute.cache_dir == Path("/x")


def test_secrets_come_from_files_and_are_never_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret = tmp_path / "key"
    secret.write_text("hush-hush\n")
    environ = {
        "QUATRAIN_STORAGE__SECRET_KEY_FILE": str(secret),
        "QUATRAIN_QUEUE__URL": "rediss://user:pass@host:1/0",
        "QUATRAIN_SERVER__PORT_FILE": "/run/ports.json",
    }

    loaded = load_config("generation", [], environ)
    with pytest.raises(SystemExit) as stopped:
        load_config("generation", ["--print-config"], environ)

    assert loaded.config.storage.secret_key == "hush-hush"
    assert loaded.config.server.port_file == Path("/run/ports.json")
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert "hush" not in shown + repr(loaded.config)
    assert "pass@" not in shown + repr(loaded.config)
    assert "rediss://user:********@host:1/0" in shown
    assert "file named by QUATRAIN_STORAGE__SECRET_KEY_FILE" in shown


def test_print_config_is_a_configuration_file(tmp_path: Path) -> None:
    loaded = load_config("learner", ["--learner.id=l1", "--orchestrator.id=o", "--rollout.id=r", "--server.port=9"], {})
    path = tmp_path / "printed.yaml"
    path.write_text(loaded.render())

    again = load_config("learner", [f"--config={path}"], {})

    assert again.config == loaded.config


def test_every_mistake_is_named_at_once_with_its_source(tmp_path: Path) -> None:
    path = tmp_path / "q.yaml"
    path.write_text("storage: {kidn: s3}\ntelemetry: {format: xml}\nrubbish: 3\n")
    environ = {"QUATRAIN_CONFIG": str(path), "QUATRAIN_SERVER__PROT": "1"}

    with pytest.raises(InvalidInput) as caught:
        load_config("generation", ["--server.port=70000"], environ)

    found = {violation.field: violation.description for violation in caught.value.violations}
    assert set(found) == {"storage.kidn", "telemetry.format", "rubbish", "server.prot", "server.port"}
    assert "did you mean storage.kind?" in found["storage.kidn"]
    assert "did you mean server.port?" in found["server.prot"]
    assert "environment QUATRAIN_SERVER__PROT" in found["server.prot"]
    assert "'console' or 'json'" in found["telemetry.format"]
    assert "flag --server.port" in found["server.port"]
    assert "70000" in found["server.port"]


def test_a_wrong_secret_is_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "q.yaml"
    path.write_text("storage: {secret_key: [hush, hush]}\n")

    with pytest.raises(InvalidInput) as caught:
        load_config("generation", [], {"QUATRAIN_CONFIG": str(path)})

    assert "storage.secret_key: Input should be a valid string" in caught.value.message
    assert "hush" not in caught.value.message


def test_a_mistake_beside_a_secret_is_told_by_its_place(tmp_path: Path) -> None:
    path = tmp_path / "q.yaml"
    path.write_text("storage:\n  secret_key: *hush\n")

    with pytest.raises(InvalidInput, match=r"not YAML \(line 2, column 15\)") as caught:
        load_config("generation", [], {"QUATRAIN_CONFIG": str(path)})

    assert "hush" not in caught.value.message


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tls.cert=a", "--tls.key=b"], "cert, key and ca belong together"),
        (["--tls.api-cert=a"], "api_cert and api_key belong together"),
        (["--tls.api-client-ca=a"], "api_client_ca needs a certificate"),
    ],
)
def test_certificates_are_given_whole(flags: list[str], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        load_config("orchestrator", flags, {})


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["server.port=1"], "unexpected argument"),
        (["--server.port"], "lacks a value"),
        (["--config=/nowhere.yaml"], "cannot be read"),
    ],
)
def test_misused_flags_are_explained(argv: list[str], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        load_config("generation", argv, {})


@pytest.mark.parametrize(("text", "message"), [("a: [", "is not YAML"), ("- 1", "must hold sections"), ("", None)])
def test_files_that_are_no_configuration(tmp_path: Path, text: str, message: str | None) -> None:
    path = tmp_path / "q.yaml"
    path.write_text(text)
    if message is None:
        load_config("generation", [], {"QUATRAIN_CONFIG": str(path)})
        return
    with pytest.raises(InvalidInput, match=message):
        load_config("generation", [], {"QUATRAIN_CONFIG": str(path)})


def test_other_variables_of_ours_are_no_configuration() -> None:
    environ = {"QUATRAIN_ENDPOINT": "x", "QUATRAIN_GENERATION_SERVICE_HOST": "10.0.0.1", "QUATRAIN_HOME": "/h"}

    assert set(load_config("generation", [], environ).sources.values()) == {"default"}


def test_help_lists_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load_config("generation", ["--help"], {})
    shown = capsys.readouterr().out
    assert "--storage.endpoint" in shown
    assert "--rollout.concurrency" in shown
