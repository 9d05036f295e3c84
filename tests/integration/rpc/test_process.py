"""A real process: configuration, port file, SIGTERM, exit codes."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.integration.rpc.servers import SERVICE, Replica, address_of, generate_of, run, serving

from quatrain.rpc.client.targets import PoolOptions, TargetPool
from quatrain.v1 import generation_pb2 as pb

PROGRAM = """
import asyncio, tempfile, time
from quatrain.config import ProcessConfig
from quatrain.errors import Unavailable
from quatrain.process.run import run_process
from quatrain.rpc.server.server import run_server
from quatrain.storage import open_store
from quatrain.storage.folders import FolderCache
from tests.integration.rpc.servers import Replica

async def main(config: ProcessConfig) -> None:
    if config.storage.kind == "memory":
        raise Unavailable("the store does not answer")
    work = asyncio.create_task(asyncio.to_thread(time.sleep, 600)) if config.queue.url == "memory://" else None
    with tempfile.TemporaryDirectory():
        if config.compute.cache_dir:
            FolderCache(open_store(config.storage), config.compute.cache_dir, 1)
        await run_server(config, "generation", Replica(hang).register)

async def hang(request, context):
    await asyncio.sleep(60)

run_process("generation", main)
"""


def start(*flags: str, **variables: str) -> subprocess.Popen[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("QUATRAIN_")} | variables
    env["PYTHONPATH"] = os.pathsep.join(
        [*variables.get("PYTHONPATH", "").split(), *(path for path in sys.path if path)]
    )
    return subprocess.Popen([sys.executable, "-c", PROGRAM, *flags], env=env, stderr=subprocess.PIPE, text=True)


def wait_for(port_file: Path, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 20
    while not port_file.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_serving_process_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    port_file = tmp_path / "ports.json"
    with start(f"--server.port-file={port_file}", "--telemetry.format=json") as process:
        wait_for(port_file, process)
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)

    assert process.returncode == 0, errors
    assert '"event": "serving"' in errors
    assert '"event": "draining"' in errors
    assert "Traceback" not in errors
    assert not port_file.exists()


def test_a_thread_that_nobody_waits_for_holds_up_no_end_and_no_temporary_file_stays(tmp_path: Path) -> None:
    port_file, temporary = tmp_path / "ports.json", tmp_path / "temporary"
    temporary.mkdir()
    with start(f"--server.port-file={port_file}", "--queue.url=memory://", TMPDIR=str(temporary)) as process:
        wait_for(port_file, process)
        (own,) = temporary.iterdir()
        assert len(list(own.iterdir())) == 1
        process.terminate()
        try:
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()

    assert process.returncode == 0, errors
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("flag", "code", "text"),
    [("--server.prot=1", 2, "did you mean server.port?"), ("--storage.kind=memory", 1, "the store does not answer")],
)
def test_failures_end_with_their_code_and_without_a_traceback(flag: str, code: int, text: str) -> None:
    with start(flag) as process:
        _, errors = process.communicate(timeout=20)

    assert process.returncode == code
    assert text in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("flags", "code", "text"),
    [
        (["--compute.cache_dir=FILE/cache"], 2, "name another with compute.cache_dir"),
        (["--server.port_file=FILE/ports.json"], 2, "name another with server.port_file"),
        (["--server.port=TAKEN"], 1, "choose others with server.port"),
        (["--server.health_port=TAKEN"], 1, "choose others with server.health_port"),
        (["--server.metrics_port=TAKEN"], 1, "choose another server.metrics_port"),
    ],
)
def test_what_the_process_needs_and_does_not_get_is_one_line_with_advice(
    tmp_path: Path, flags: list[str], code: int, text: str
) -> None:
    (tmp_path / "file").write_text("")
    temporary = tmp_path / "temporary"  # Its own: what dead processes left elsewhere is deleted, which is another line.
    temporary.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        given = [
            flag.replace("FILE", f"{tmp_path}/file").replace("TAKEN", str(taken.getsockname()[1])) for flag in flags
        ]
        with start(f"--storage.root={tmp_path}/store", *given, TMPDIR=str(temporary)) as process:
            _, errors = process.communicate(timeout=60)

    # What gRPC itself says of a port stays above our line.
    lines = [line for line in errors.splitlines() if "add_port.cc" not in line]
    assert process.returncode == code, errors
    assert len(lines) == 1, errors
    assert text in lines[0]


def test_without_a_folder_for_temporary_files_a_process_says_so(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import tempfile\ntempfile._candidate_tempdir_list = lambda: ['/none/of/these']\n"
    )
    with start(PYTHONPATH=str(tmp_path)) as process:
        _, errors = process.communicate(timeout=60)

    assert process.returncode == 2, errors
    assert errors.strip().endswith("TMPDIR")
    assert len(errors.splitlines()) == 1


def test_a_replica_that_freezes_in_a_call_loses_it_to_another(tmp_path: Path) -> None:
    port_file = tmp_path / "ports.json"
    options = PoolOptions(keepalive=1.0, keepalive_timeout=1.0, probe_timeout=1.0)

    async def work() -> None:
        frozen = f"127.0.0.1:{json.loads(port_file.read_text())['port']}"
        healthy = Replica()
        async with contextlib.AsyncExitStack() as stack:
            server = await stack.enter_async_context(serving(healthy, ready=False))
            pool = TargetPool(f"{frozen},{address_of(server)}", service=SERVICE, options=options)
            await stack.enter_async_context(pool)
            call = asyncio.create_task(pool.call(generate_of, pb.GenerateRequest(), timeout=15.0))
            while pool.usable != (frozen,):  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.2)
            process.send_signal(signal.SIGSTOP)
            await server.serve()
            await call
            assert healthy.calls == 1

    with start(f"--server.port-file={port_file}", "--server.shutdown-grace=0") as process:
        wait_for(port_file, process)
        try:
            run(work)
        finally:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            process.communicate(timeout=20)
