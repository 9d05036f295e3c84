"""Temporary folders of processes: those of killed ones go, those of living ones and of others stay."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quatrain.process.scratch import PREFIX, own_folder

HOLDER = """
import sys, time
from pathlib import Path
from quatrain.process.scratch import own_folder
with own_folder(Path(sys.argv[1])) as folder:
    (folder / "inside").mkdir(mode=0o700)
    (folder / "inside" / "weights").write_bytes(b"1")
    print(folder, flush=True)
    time.sleep(600)
"""


@contextmanager
def holder(parent: Path) -> "Iterator[tuple[subprocess.Popen[str], Path]]":
    """A process that holds a folder in `parent`."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(parent)], stdout=subprocess.PIPE, text=True, env=env)
    assert process.stdout is not None
    try:
        yield process, Path(process.stdout.readline().strip())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_what_a_killed_process_left_goes_and_what_lives_stays(tmp_path: Path) -> None:
    with holder(tmp_path) as (killed, left), holder(tmp_path) as (_, living):
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert (left / "inside" / "weights").exists()

        with own_folder(tmp_path) as own:
            assert not left.exists()
            assert (living / "inside" / "weights").exists()
            assert own.is_dir()
        assert set(tmp_path.iterdir()) == {living}


def test_what_is_no_folder_of_a_process_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    parent = tmp_path / "parent"
    parent.mkdir()
    (parent / f"{PREFIX}link").symlink_to(precious)
    (parent / f"{PREFIX}file").write_text("")
    (parent / "quatrain-other").mkdir()

    with own_folder(parent):
        pass

    assert precious.is_dir()
    assert {path.name for path in parent.iterdir()} == {f"{PREFIX}link", f"{PREFIX}file", "quatrain-other"}
