"""`python -m tests.cluster` (make cluster-test): helm install to a finished job, with pods that really run.

Builds and imports the images, installs the chart with the CPU values and the bundled Valkey and MinIO into a namespace
that enforces Pod Security `restricted`, runs `helm test`, then a job for each disturbance of `--only` (default: all).
Every job must succeed with the weights of the undisturbed one. `--results FOLDER` gets the table as JSON and markdown.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import yaml
from tests.cluster.disturbances import DISTURBANCES
from tests.cluster.node import Node, run_node
from tests.cluster.release import CHART, Release
from tests.cluster.trial import Client, Run, run_job

ROOT = Path(__file__).parents[2]
REGISTRY = "localhost"  # what podman puts before the names of images that it has built
IMAGES = ("orchestrator", "generation", "reward", "reference", "learner", "valkey", "minio")
NAMESPACE = "quatrain"


def main() -> int:
    """0 when every job succeeded with the same weights."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("--only", nargs="*", default=list(DISTURBANCES), help="these disturbances")
    parser.add_argument("--results", type=Path, help="folder for the table")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    facts = {"date": datetime.now(UTC).date().isoformat(), "commit": commit()}  # of what begins now
    names = ["undisturbed", *(name for name in arguments.only if name != "undisturbed")]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="quatrain-node-")))
        node = stack.enter_context(run_node(folder))
        import_images(node, folder)
        release = install(node)
        runs = [_run(release, folder, name) for name in names]
    table = markdown(runs)
    print(table)
    if arguments.results:
        arguments.results.mkdir(parents=True, exist_ok=True)
        whole = {**facts, "runs": [asdict(run) for run in runs]}
        (arguments.results / "cluster.json").write_text(json.dumps(whole, indent=2) + "\n")
        (arguments.results / "cluster.md").write_text(table)
    return 0 if all(run.state == "SUCCEEDED" and run.weights == runs[0].weights for run in runs) else 1


def import_images(node: Node, folder: Path) -> None:
    """Out of podman's storage, where docker/build.py has put them, all in one archive: they share layers."""
    version = chart_version()
    names = [f"{REGISTRY}/quatrain/{name}:{version}" for name in IMAGES]
    missing = [name for name in names if subprocess.run(["podman", "image", "exists", name], check=False).returncode]
    if missing:
        raise SystemExit(f"{', '.join(missing)} are missing: `make images` builds them")
    archive = folder / "images.tar"
    command = ["podman", "save", "--quiet", "--multi-image-archive", "--format=docker-archive", f"--output={archive}"]
    _timed("images saved", lambda: subprocess.run([*command, *names], check=True))
    _timed("images imported", lambda: node.import_image(archive))
    archive.unlink()


def install(node: Node) -> Release:
    """The release, ready and tested."""
    values = [f"--values={CHART / 'values-cpu.yaml'}", f"--set=global.imageRegistry={REGISTRY}"]
    values += [f"--set=valkey.image.repository=quatrain/valkey,valkey.image.tag={chart_version()}"]
    release = Release(node.cluster, node.cluster.namespace(NAMESPACE), values=values, seconds=600)
    _timed("helm install", release.install)
    _timed("helm test", release.test)
    return release


def markdown(runs: Sequence[Run]) -> str:
    """The table of docs/deploy.md."""
    lines = ["| run | end | weights | seconds | what happened |", "|---|---|---|---|---|"]
    for run in runs:
        same = "the same" if run.weights == runs[0].weights else "DIFFERENT"
        weights = f"`{run.weights[:12]}`" if run is runs[0] else same
        lines.append(f"| {run.name} | {run.state} | {weights} | {run.seconds:.0f} | {'; '.join(run.notes)} |")
    return "\n".join(lines) + "\n"


def chart_version() -> str:
    """The version of the images, which is that of the chart's application."""
    return str(yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"])


def commit() -> str:
    """The checkout's commit."""
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _run(release: Release, folder: Path, name: str) -> Run:
    client = Client.of(release, folder / "client")
    began = time.monotonic()
    try:
        run = run_job(client, name, lambda job: DISTURBANCES[name](release, client, job))
    except AssertionError as error:  # the other runs are to be seen, too
        run = Run(name, "BROKEN", "", time.monotonic() - began, [str(error)[:2000]])
        print(run.notes[0])
    print(f"{run.name}: {run.state} after {run.seconds:.0f} s, weights {run.weights[:12]}", flush=True)
    return run


def _timed(what: str, action: Callable[[], object]) -> None:
    began = time.monotonic()
    action()
    print(f"{what}: {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
