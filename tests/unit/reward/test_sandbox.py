"""Uploaded reward functions that want more than to score: each is refused or ended, and others go on."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.unit.reward.hostile_functions import GREEDY
from tests.unit.reward.scenery import batch, make_tokenizer, sample

import quatrain.reward.runner
from quatrain.digests import sha256_hex
from quatrain.errors import InvalidInput, RewardFunctionError
from quatrain.jobspec.reward_section import FunctionSource
from quatrain.reward.backends import sandbox
from quatrain.reward.backends.functions import FunctionBackend, FunctionSettings
from quatrain.reward.backends.process import CallFailed, FunctionProcess
from quatrain.reward.backends.sandbox import FIRST_USER, CodeLimits, SandboxFactory, open_to_others
from quatrain.reward.samples import Batch
from quatrain.storage.memory import MemoryStore

T = TypeVar("T")
SECRET = "planted-storage-key"
MIB = 2**20


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Batch:
    """One sample; `kept` names a file of the service."""
    kept = tmp_path_factory.mktemp("service") / "secret"
    kept.write_text(SECRET)
    tokenizer = make_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    return batch(tokenizer, sample("a", "ad$", kept=str(kept)), timeout=20.0)


@pytest.fixture(scope="module")
def installation() -> Iterator[tuple[str, tuple[str, ...]]]:
    """A Python that every user can read, and its import path: this one's, or a copy of it."""
    if open_to_others(sys.executable) and open_to_others(quatrain.reward.runner.__path__[0]):
        yield sys.executable, sandbox._import_paths()
        return
    with tempfile.TemporaryDirectory(prefix="quatrain-python-") as name:
        folder, library = Path(name), Path(sysconfig.get_path("stdlib"))
        folder.chmod(0o755)
        left_out = shutil.ignore_patterns("site-packages", "test", "tests", "idlelib", "config-*", "__pycache__", "*.a")
        shutil.copytree(library, folder / "lib" / library.name, ignore=left_out)
        (folder / "bin").mkdir()
        python = folder / "bin" / "python3"
        shutil.copy(Path(sys.executable).resolve(), python)
        runner = folder / "code" / "quatrain" / "reward" / "runner"
        shutil.copytree(quatrain.reward.runner.__path__[0], runner, ignore=left_out)
        yield str(python), (str(folder / "lib"), str(folder / "code"))


def run(work: Callable[[FunctionBackend, MemoryStore], Awaitable[T]], sandboxes: SandboxFactory | None = None) -> T:
    async def main() -> T:
        store = MemoryStore()
        backend = FunctionBackend(
            store, FunctionSettings(allow_code=True, code_limits=CodeLimits(512 * MIB)), sandboxes
        )
        try:
            return await work(backend, store)
        finally:
            await backend.close()

    return asyncio.run(main())


def uploaded(store: MemoryStore, name: str, code: str = GREEDY) -> FunctionSource:
    data = textwrap.dedent(code).encode()
    store.put(f"data/sha256/{sha256_hex(data)}", data)
    return FunctionSource(path=f"greedy.py:{name}", code_digest=sha256_hex(data))


def limited(one: Batch, seconds: float) -> Batch:
    return Batch(one.job, one.samples, one.tokenizer, one.tokenizer_ref, timeout=seconds)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("memory", "raised MemoryError"),
        ("memory_by_and_by", "raised MemoryError"),
        ("forks", "raised PermissionError: [Errno 1]"),
        ("command", "raised PermissionError: [Errno 1]"),
        ("loop", "did not return within 2 s"),
        ("kills_service", "raised PermissionError"),
        ("kills_everybody", "raised PermissionError"),
        ("connects", "raised PermissionError"),
        ("large_file", "raised OSError: [Errno 27] File too large"),
        ("forged_answer", "sent an invalid answer: it has 4294967295 bytes"),
        ("answer_of_nobody", "sent an invalid answer"),
        ("strange_names", "sent an invalid answer"),
        ("strange_error", "raised ValueError: ?xxx"),
    ],
)
def test_greed_ends_in_an_error_of_the_function_and_others_go_on(one: Batch, name: str, said: str) -> None:
    async def work(backend: FunctionBackend, store: MemoryStore) -> tuple[str, Any]:
        other = asyncio.create_task(backend.score(uploaded(store, "zero"), one))
        with pytest.raises(RewardFunctionError) as caught:
            await backend.score(uploaded(store, name), limited(one, 2.0 if name == "loop" else 20.0))
        await other
        return caught.value.message, (await backend.score(uploaded(store, "zero"), one)).values

    message, values = run(work)

    assert said in message
    assert len(message) < 3000
    assert values == (0.0,)


def test_a_folder_full_of_files_ends_the_function(one: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "FOLDER_BYTES", 8 * MIB)

    async def work(backend: FunctionBackend, store: MemoryStore) -> str:
        with pytest.raises(RewardFunctionError) as caught:
            await backend.score(uploaded(store, "many_files"), limited(one, 60.0))
        return caught.value.message

    assert "MiB of files in its folder" in run(work)


@pytest.mark.parametrize(("name", "value"), [("talks", 2.0), ("deletes_itself", 3.0)])
def test_noise_and_a_deleted_file_harm_nobody(one: Batch, name: str, value: float) -> None:
    async def work(backend: FunctionBackend, store: MemoryStore) -> tuple[Any, str, str]:
        source = uploaded(store, name)
        scores = await backend.score(source, one)
        return scores.values, scores.version, f"{source.path}@{source.code_digest}"

    values, version, expected = run(work)

    assert values == (value,)
    assert version == expected


def test_nothing_runs_between_calls(one: Batch) -> None:
    """A thread that the function leaves behind gets no time."""

    async def work(backend: FunctionBackend, store: MemoryStore) -> tuple[float, float]:
        code = textwrap.dedent(GREEDY).replace("def counted", "def rest").replace("goes_on_later", "counted_later")
        code += (
            "\ndef both(**kwargs):\n    return counted_later(**kwargs) if 'state' not in globals() else rest(**kwargs)"
        )
        source = uploaded(store, "both", code)
        await backend.score(source, one)
        first = (await backend.score(source, one)).values[0]
        await asyncio.sleep(1.0)
        second = (await backend.score(source, one)).values[0]
        return first or 0.0, second or 0.0

    first, second = run(work)

    assert second - first < 300  # a thousand and more in a second


def attempts(one: Batch, sandboxes: SandboxFactory | None = None) -> dict[str, Any]:
    async def work(backend: FunctionBackend, store: MemoryStore) -> dict[str, Any]:
        scores = await backend.score(uploaded(store, "attempts"), one)
        got: dict[str, Any] = scores.logged["got"][0]
        return got

    return run(work, sandboxes)


NOTHING = {
    "service": "PermissionError",
    "first": "PermissionError",
    "shadow": "PermissionError",
    "kept": "PermissionError",
    "folder": "PermissionError",
    "elsewhere": "PermissionError",
    "attach": -1,
    "namespace": -1,
    "root": "PermissionError",
    "shared": "PermissionError",
    "limits": "PermissionError",
    "here": "1",
    "pair": "2",
}


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("QUATRAIN_STORAGE__SECRET_KEY", "AWS_SECRET_ACCESS_KEY", "REDIS_PASSWORD", "SOME_TOKEN"):
        monkeypatch.setenv(name, SECRET)


@pytest.mark.usefixtures("secrets")
def test_files_processes_and_settings_of_the_service_are_out_of_reach(one: Batch) -> None:
    got = attempts(one)

    assert {name: got[name] for name in NOTHING} == NOTHING
    assert SECRET not in json.dumps(got)
    assert len(got["descriptors"]) <= 5  # two ends of the protocol, and three of the event loop


@pytest.mark.usefixtures("secrets")
def test_where_the_service_is_root_each_function_is_a_user_of_its_own(
    one: Batch, installation: tuple[str, tuple[str, ...]]
) -> None:
    python, import_paths = installation
    sandboxes = SandboxFactory(CodeLimits(), python=python, import_paths=import_paths)

    first, second = (attempts(one, sandboxes) for _ in range(2))

    root = os.geteuid() == 0
    users = [[FIRST_USER + number] * 3 for number in range(2)] if root else [[os.getuid()] * 2] * 2
    assert [first["user"][: len(users[0])], second["user"][: len(users[1])]] == users
    assert {name: first[name] for name in NOTHING} == NOTHING


@pytest.mark.usefixtures("secrets")
def test_the_users_rights_alone_keep_the_services_files(
    one: Batch, installation: tuple[str, tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a kernel without Landlock. An ordinary user's service has no other user to change to."""
    python, import_paths = installation
    sandboxes = SandboxFactory(CodeLimits(), python=python, import_paths=import_paths)
    everything = (*sandbox.SYSTEM_FILES, "/")
    monkeypatch.setattr(sandbox, "SYSTEM_FILES", everything)

    got = attempts(one, sandboxes)

    private = ("service", "first", "shadow", "kept", "folder") if os.geteuid() == 0 else ("shadow",)
    assert [got[name] for name in private] == ["PermissionError"] * len(private)
    assert SECRET not in json.dumps(got["environment"])


def test_the_folder_is_gone_when_the_process_is(one: Batch) -> None:
    async def work(backend: FunctionBackend, store: MemoryStore) -> list[Path]:
        await backend.score(uploaded(store, "zero"), one)
        (slot,) = backend._slots.values()
        assert slot.process is not None
        assert slot.process._sandbox is not None
        folder = slot.process._sandbox.folder
        assert folder.is_dir()
        await backend.close()
        return [folder]

    assert [folder for folder in run(work) if folder.exists()] == []


def test_a_name_with_tricks_is_only_a_name(one: Batch) -> None:
    names = ["../../evil.py", "a/b\\..\\c.py", "nul\0.py", "x" * 5000 + ".py", "\u202egnp.py", "..py", ".py"]

    async def work(backend: FunctionBackend, store: MemoryStore) -> list[Any]:
        source = uploaded(store, "zero")
        asked = [FunctionSource(path=f"{name}:zero", code_digest=source.code_digest) for name in names]
        return [(await backend.score(each, one)).values for each in asked]

    assert run(work) == [(0.0,)] * len(names)


def test_a_service_that_may_not_deny_the_network_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(target: str, sandbox: Any, timeout: float) -> FunctionProcess:
        raise CallFailed("is not run: there is no filter of system calls", any_sample=True)

    monkeypatch.setattr(FunctionProcess, "start", refused)

    with pytest.raises(InvalidInput, match=r"reward.allow_code is set, but uploaded code is not run"):
        run(lambda backend, _: backend.check_sandbox())


def test_without_a_filter_of_calls_nothing_runs_unless_the_network_is_allowed(tmp_path: Path) -> None:
    script = """
        import platform, sys, os
        from quatrain.reward.runner import confinement
        confinement.forbid_calls = lambda libc, network: False
        limits = confinement.Confinement(None, 2**32, 2**20, 64, sys.argv[1] == "allow", tuple(sys.path), ())
        try:
            print(confinement.confine(limits)["calls"])
        except confinement.NotConfined as error:
            print(error)
    """

    def said(network: str) -> str:
        command = [sys.executable, "-c", textwrap.dedent(script), network]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    assert said("allow") == "False"
    assert "reward.code_network=allow" in said("deny")


def test_a_service_without_any_right_confines_as_well(installation: tuple[str, tuple[str, ...]]) -> None:
    """As in a restricted Pod: an ordinary user, no capability, no new privileges."""
    script = """
        import os, socket, sys
        from quatrain.reward.runner.confinement import Confinement, confine
        paths = tuple(path for path in sys.path if path)
        print(sorted(confine(Confinement(None, 2**32, 2**20, 64, False, (*paths, "/usr", "/lib"), ())).items()))
        for attempt in (os.fork, socket.socket, lambda: open("/etc/passwd"), lambda: os.kill(os.getppid(), 0)):
            try:
                print(attempt())
            except OSError as error:
                print(type(error).__name__)
    """
    python, import_paths = installation
    rights: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    environment = {"PYTHONPATH": os.pathsep.join(import_paths)}
    command = [python, "-P", "-c", textwrap.dedent(script)]
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False, **rights)

    enforced, *refused = done.stdout.splitlines()
    assert enforced == "[('calls', True), ('files', True), ('user', False)]", done.stderr
    assert refused == ["PermissionError"] * 4


def test_a_stopped_function_ends_when_its_service_is_killed(tmp_path: Path) -> None:
    script = """
        import asyncio, os, signal
        from quatrain.reward.backends.sandbox import CodeLimits, SandboxFactory
        from quatrain.reward.backends.process import FunctionProcess
        async def main():
            sandbox = SandboxFactory(CodeLimits()).create({"f.py": b"def f(**k): return []"}, alone=True)
            process = await FunctionProcess.start("f.py:f", sandbox, 30)
            print(process._process.pid, sandbox.folder, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        asyncio.run(main())
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout.split()
    pid, folder = int(printed[0]), printed[1]
    shutil.rmtree(folder)

    until = time.monotonic() + 30
    while _runs(pid):
        assert time.monotonic() < until, "the function outlives its service"
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
