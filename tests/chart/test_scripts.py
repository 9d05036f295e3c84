"""The scripts that pods of the chart run, against real servers: the wait before the start, and those of `helm test`.

The bundled servers are started as their pods start them: with the rendered configuration and the credentials as files.
"""

import base64
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.chart.rendering import CHART, Rendered, render
from tests.e2e.stack import running_stack
from tests.servers.binaries import MINIO, require_program
from tests.servers.processes import ServerProcess, running, start_server
from tests.servers.redis import valkey_binary

from quatrain.local.ports import free_port

WAIT = CHART / "files" / "scripts" / "wait.py"
TESTS = CHART / "files" / "tests"
SECONDS = 400.0
# Of its own, so that the fixed port of health is free.
HOST = "127.0.0.77"


def run(script: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """Exit code and output of a script, in an environment without other settings of Quatrain."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("QUATRAIN_")} | environment
    command = [sys.executable, str(script), *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=SECONDS, check=False)
    return done.returncode, done.stdout + done.stderr


def secret(rendered: Rendered, name: str, folder: Path) -> Path:
    """The files of a mounted Secret."""
    folder.mkdir()
    for key, text in rendered.get("Secret", name)["data"].items():
        (folder / key).write_bytes(base64.b64decode(text))
    return folder


@pytest.fixture(scope="module")
def release() -> Rendered:
    return render()


@pytest.fixture(scope="module")
def storage(release: Rendered, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Settings of a process whose store is the bundled MinIO; without its bucket at first."""
    folder = tmp_path_factory.mktemp("minio")
    keys = secret(release, "quatrain-minio", folder / "secret")
    main = release.pod("minio").main
    (folder / "data").mkdir()
    env = {each["name"]: each["value"].replace("/etc/minio", str(keys)) for each in main["env"]} | {"HOME": str(folder)}
    changed = {"minio": str(require_program(MINIO)), "/data": str(folder / "data")}

    def command(port: int) -> list[str]:
        return [f"127.0.0.1:{port}" if part == ":9000" else changed.get(part, part) for part in main["command"]]

    with running(start_server(command, folder, ready=listens, env=env)) as server:
        yield {
            "QUATRAIN_STORAGE__KIND": "s3",
            "QUATRAIN_STORAGE__ENDPOINT": server.address,
            "QUATRAIN_STORAGE__SECURE": "false",
            "QUATRAIN_STORAGE__ACCESS_KEY_FILE": str(keys / "access-key"),
            "QUATRAIN_STORAGE__SECRET_KEY_FILE": str(keys / "secret-key"),
        }


@pytest.fixture(scope="module")
def queue(release: Rendered, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Settings of a process whose queue is the bundled Valkey."""
    folder = tmp_path_factory.mktemp("valkey")
    keys = secret(release, "quatrain-valkey", folder / "secret")
    conf = release.get("ConfigMap", "quatrain-valkey")["data"]["valkey.conf"]
    conf = conf.replace("/etc/valkey-secret", str(keys)).replace("dir /data", f"dir {folder}")
    (folder / "valkey.conf").write_text(conf)
    with running(
        start_server(
            lambda port: [str(valkey_binary()), str(folder / "valkey.conf"), "--port", str(port)], folder, ready=listens
        )
    ) as server:
        url = (keys / "url").read_text().replace("quatrain-valkey.default.svc:6379", server.address)
        (keys / "url").write_text(url)
        yield {"QUATRAIN_QUEUE__URL_FILE": str(keys / "url")}
        assert (folder / "appendonlydir").is_dir()


def listens(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_pod_waits_and_makes_the_bucket(storage: dict[str, str], queue: dict[str, str]) -> None:
    code, said = run(WAIT, "--seconds=1", "--queue", **storage, **queue)
    assert (code, "there is no such bucket" in said) == (1, True), said
    for _ in range(2):  # The second pod finds it made.
        code, said = run(WAIT, "--seconds=30", "--make-bucket", "--queue", **storage, **queue)
        assert code == 0, said
        assert "found the queue" in said
    code, said = run(TESTS / "check_storage.py", **storage)
    assert code == 0, said


def test_wait_ends_with_what_is_missing(storage: dict[str, str]) -> None:
    nobody = {"QUATRAIN_QUEUE__URL": f"redis://127.0.0.1:{free_port()}/0"}
    code, said = run(WAIT, "--seconds=1", "--make-bucket", "--queue", **storage, **nobody)
    assert code == 1
    assert nobody["QUATRAIN_QUEUE__URL"].removeprefix("redis://").removesuffix("/0") in said


def test_store_of_another_kind_is_refused(tmp_path: Path) -> None:
    code, said = run(TESTS / "check_storage.py", QUATRAIN_STORAGE__KIND="local")
    assert code == 1
    assert "storage.root" in said


def test_queue_round_trip_leaves_nothing(queue: dict[str, str]) -> None:
    code, said = run(TESTS / "check_queue.py", **queue)
    assert code == 0, said
    url = Path(queue["QUATRAIN_QUEUE__URL_FILE"]).read_text()
    code, said = run(Path(__file__).with_name("list_keys.py"), url)
    assert (code, said.strip()) == (0, "[]")


def test_queue_without_its_password(queue: dict[str, str]) -> None:
    address = Path(queue["QUATRAIN_QUEUE__URL_FILE"]).read_text().rpartition("@")[2]
    code, said = run(TESTS / "check_queue.py", QUATRAIN_QUEUE__URL=f"redis://{address}")
    assert code == 1, said


def test_health_of_a_service(tmp_path: Path) -> None:
    name = f"quatrain.v1.GenerationService={HOST}"
    settings = {
        "QUATRAIN_STORAGE__ROOT": str(tmp_path / "store"),
        "QUATRAIN_GENERATION__ENGINE": "fake",
        "QUATRAIN_SERVER__HOST": HOST,
        "QUATRAIN_SERVER__HEALTH_PORT": "50060",
        "QUATRAIN_SERVER__INSECURE": "true",
    }
    (tmp_path / "store").mkdir()
    server: ServerProcess = start_server(
        lambda port: [sys.executable, "-m", "quatrain.generation", f"--server.port={port}"],
        tmp_path,
        ready=lambda _: run(TESTS / "check_health.py", name)[0] == 0,
        env=settings,
    )
    with running(server):
        code, said = run(TESTS / "check_health.py", name, f"rollout={HOST}")
        assert code == 0, said
        assert said.count("SERVING") == 2
        bad = (f"quatrain.v1.RewardService={HOST}", "rollout=no-such-host.invalid")
        code, said = run(TESTS / "check_health.py", *bad)
        assert (code, "NOT_FOUND" in said, "no replica is ready" in said) == (1, True, True), said


def test_job_to_its_end(tmp_path: Path) -> None:
    with running_stack(tmp_path / "home") as stack:
        code, said = run(TESTS / "check_job.py", "--pool=default", "--seconds=300", QUATRAIN_ENDPOINT=stack.target)
        assert code == 0, said + stack.logs()
        assert "SUCCEEDED" in said
        code, said = run(TESTS / "check_job.py", "--pool=default", "--seconds=0.1", QUATRAIN_ENDPOINT=stack.target)
        assert code == 1, said
