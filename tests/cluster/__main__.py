"""`python -m tests.cluster` (make cluster-test): helm install to a finished job, with pods that really run.

Imports the images, installs the chart with the CPU values and the bundled Valkey and MinIO into a namespace that
enforces Pod Security `restricted`, runs `helm test`, then a job for each disturbance and scenario of `--only` (default:
all). Every job must succeed with the weights of the undisturbed one. `--results FOLDER` gets the table as JSON and
markdown.
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
from typing import TypeVar

import yaml
from tests.cluster import release_scenarios
from tests.cluster.autoscaled import autoscaled
from tests.cluster.disturbances import DISTURBANCES
from tests.cluster.grouped import grouped
from tests.cluster.node import Node, run_node
from tests.cluster.release import CHART, Release
from tests.cluster.release_scenarios import ReleaseFactory
from tests.cluster.trial import Client, Run, run_job

ROOT = Path(__file__).parents[2]
REGISTRY = "localhost"  # what podman puts before the names of images that it has built
IMAGES = ("orchestrator", "generation", "reward", "reference", "learner", "valkey", "minio")
NAMESPACE = "quatrain"
PUBLIC_VALKEY = "docker.io/valkey/valkey:8.1"  # the chart's default

SCENARIOS = {**release_scenarios.SCENARIOS, "autoscaled": autoscaled, "grouped": grouped}

T = TypeVar("T")


def main() -> int:
    """0 when every job succeeded with the same weights."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("--only", nargs="*", choices=[*DISTURBANCES, *SCENARIOS], default=[*DISTURBANCES, *SCENARIOS])
    parser.add_argument("--results", type=Path, help="folder for the table")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    facts: dict[str, object] = {"date": datetime.now(UTC).date().isoformat(), "commit": commit()}  # of what begins now
    names = ["undisturbed", *(name for name in arguments.only if name != "undisturbed")]
    clock = Clock()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="quatrain-node-")))
        node = clock.time("node started", lambda: stack.enter_context(run_node(folder)))
        import_images(node, folder, clock)
        factory = ReleaseFactory(node, folder)
        release = factory.release(NAMESPACE)
        clock.time("helm install", release.install)
        clock.time("helm test", release.test)
        runs = [_run(factory, release, name) for name in names]
    table = markdown(runs)
    print(f"{table}\nin all: {clock.total:.0f} s")
    if arguments.results:
        arguments.results.mkdir(parents=True, exist_ok=True)
        whole = {**facts, "seconds": {**clock.seconds, "in all": clock.total}, "runs": [asdict(run) for run in runs]}
        (arguments.results / "cluster.json").write_text(json.dumps(whole, indent=2) + "\n")
        (arguments.results / "cluster.md").write_text(table)
    return 0 if all(run.state == "SUCCEEDED" and run.weights in (None, runs[0].weights) for run in runs) else 1


class Clock:
    """How long what took, in seconds."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.seconds: dict[str, float] = {}

    def time(self, what: str, action: Callable[[], T]) -> T:
        """Does it and says how long it took."""
        began = time.monotonic()
        result = action()
        self.seconds[what] = round(time.monotonic() - began, 1)
        print(f"{what}: {self.seconds[what]:.0f} s", flush=True)
        return result

    @property
    def total(self) -> float:
        """Since it was made."""
        return round(time.monotonic() - self._began, 1)


def import_images(node: Node, folder: Path, clock: Clock) -> None:
    """Out of podman's storage, where docker/build.py has put them, all in one archive: they share layers.

    On the node they have the names by which the chart asks for them; our Valkey stands in for the public one.
    """
    version = chart_version()
    names = [f"{REGISTRY}/quatrain/{name}:{version}" for name in IMAGES]
    missing = [name for name in names if subprocess.run(["podman", "image", "exists", name], check=False).returncode]
    if missing:
        raise SystemExit(f"{', '.join(missing)} are missing: `make images` builds them")
    archive = folder / "images.tar"
    command = ["podman", "save", "--quiet", "--multi-image-archive", "--format=docker-archive", f"--output={archive}"]
    clock.time("images saved", lambda: subprocess.run([*command, *names], check=True))
    clock.time("images imported", lambda: node.import_image(archive))
    archive.unlink()
    for name in names:
        node.name_image(name, name.replace(REGISTRY, "docker.io"))
    node.name_image(f"{REGISTRY}/quatrain/valkey:{version}", PUBLIC_VALKEY)


def markdown(runs: Sequence[Run]) -> str:
    """The table of docs/deploy.md."""
    lines = ["| run | end | weights | seconds | what happened |", "|---|---|---|---|---|"]
    for run in runs:
        same = {runs[0].weights: "the same", None: "of another job"}.get(run.weights, "DIFFERENT")
        weights = f"`{str(run.weights)[:12]}`" if run is runs[0] else same
        lines.append(f"| {run.name} | {run.state} | {weights} | {run.seconds:.0f} | {'; '.join(run.notes)} |")
    return "\n".join(lines) + "\n"


def chart_version() -> str:
    """The version of the images, which is that of the chart's application."""
    return str(yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"])


def commit() -> str:
    """The checkout's commit."""
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _run(factory: ReleaseFactory, release: Release, name: str) -> Run:
    began = time.monotonic()
    try:
        if name in SCENARIOS:
            run = SCENARIOS[name](factory)
        else:
            client = Client(release, factory.folder / "client")
            run = run_job(client, name, lambda job: DISTURBANCES[name](release, client, job))
    except (AssertionError, subprocess.SubprocessError) as error:  # the other runs are to be seen, too
        run = Run(name, "BROKEN", "", time.monotonic() - began, [str(error)[:2000]])
        print(error)
    print(f"{name}: {run.state} after {run.seconds:.0f} s, weights {(run.weights or '')[:12]}", flush=True)
    return run


if __name__ == "__main__":
    sys.exit(main())
