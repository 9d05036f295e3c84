"""What a run asks for besides a plain job: a fork, a deletion, an upload, an import. It asks until an answer comes."""

import hashlib
import shutil
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tests.chaos.api import CALL_SECONDS, Make, Submission, Watcher, creation, forking
from tests.chaos.checker import Observed, check
from tests.chaos.checker.objects import sha256
from tests.chaos.deployment import JOB_DEADLINE, Deployment
from tests.chaos.jobs import FORK_STEP

from quatrain.v1 import artifact_pb2, job_pb2

CLEAN_SECONDS = 30.0
"""Within which the stack must have deleted what was released."""
PIECE = 64 * 1024
PIECES = 6
"""Chunks of an uploaded file."""


class Scenario:
    """A plain job, and nothing besides it."""

    def __init__(self, deployment: Deployment, variant: str, job: str) -> None:
        self.deployment = deployment
        self.variant = variant
        self.job = job
        self.problems: list[str] = []
        self.deadline = time.monotonic() + JOB_DEADLINE

    def prepare(self) -> None:
        """Prepare what the job needs, before the fault is planned."""

    def make(self) -> Make:
        """Return the call that makes the job."""
        return creation(self.deployment.spec(self.variant), self.job)

    def lost(self) -> None:
        """Check what is in the store after that call got no answer."""

    def run(self) -> None:
        """Do what else there is to do, once the job is accepted."""

    def finish(self) -> dict[str, Any]:
        """Return what was observed, for the checker, after the end of the job."""
        return {}


class ForkScenario(Scenario):
    """The job is a fork of one that ended. Its source must stay as it is; the fork is whole or absent at any time."""

    def __init__(self, deployment: Deployment, variant: str, job: str) -> None:
        super().__init__(deployment, variant, job)
        self.source = "unbroken-ppo"
        self.kept: dict[str, str] = {}

    def prepare(self) -> None:
        self.deployment.unbroken("ppo")
        self.kept = self.digests("models/", "data/", "jobs/unbroken-", f"jobs/{self.source}/")

    def digests(self, *prefixes: str) -> dict[str, str]:
        """Return key to sha256 of what the store has under these prefixes."""
        objects = self.deployment.objects
        return {key: sha256(objects.get(key)) for prefix in prefixes for key in objects.list(prefix)}

    def make(self) -> Make:
        return forking(self.source, FORK_STEP, self.job)

    def lost(self) -> None:
        if self.deployment.objects.list(f"jobs/{self.job}/spec.json"):
            found = check(self.deployment.objects, self.job, Observed(running=True))
            self.problems += [f"half a fork: {violation}" for violation in found]

    def finish(self) -> dict[str, Any]:
        return {"kept": self.kept}


class DeleteScenario(ForkScenario):
    """The source of the fork (`delete`), or the checkpoint that it came from (`release`), is deleted meanwhile."""

    def __init__(self, deployment: Deployment, variant: str, job: str) -> None:
        super().__init__(deployment, variant, job)
        self.source = f"{job}-source"

    def prepare(self) -> None:
        api = self.deployment.api
        Submission(api, creation(self.deployment.spec("ppo"), self.source), self.source).run(self.deadline)
        watcher = Watcher(api, self.source)
        watcher.await_end(self.deadline)
        if not self.await_clean():
            raise RuntimeError(f"{self.source} was not cleaned up before anything went wrong")
        super().prepare()

    def run(self) -> None:
        if self.variant == "delete":
            job = job_pb2.DeleteJobRequest(job_id=self.source, reason="chaos")
            call: Callable[[Any], Any] = lambda stub: stub.DeleteJob(job, timeout=CALL_SECONDS)  # noqa: E731
        else:
            step = job_pb2.DeleteCheckpointRequest(job_id=self.source, step=FORK_STEP, reason="chaos")
            call = lambda stub: stub.DeleteCheckpoint(step, timeout=CALL_SECONDS)  # noqa: E731
        self.deployment.api.retry_while_unavailable(call, self.deadline)

    def await_clean(self) -> bool:
        """Wait until nothing of the source is left to delete; return whether that came in time."""
        until = time.monotonic() + CLEAN_SECONDS
        while self.deployment.objects.list(f"cleanup/{self.source}/") or self.deployment.objects.list(
            f"active/{self.source}"
        ):
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        return True

    def finish(self) -> dict[str, Any]:
        seen = Observed(cleanup_left=not self.await_clean(), kept=self.kept)
        found = check(self.deployment.objects, self.source, seen)
        self.problems += [f"the source: {violation}" for violation in found]
        return super().finish()


class UploadScenario(Scenario):
    """A file of several chunks is uploaded while the job runs."""

    def __init__(self, deployment: Deployment, variant: str, job: str) -> None:
        super().__init__(deployment, variant, job)
        self.uploaded: list[str] = []

    def run(self) -> None:
        self.upload(np.random.default_rng(list(self.job.encode())).bytes(PIECE * PIECES - 1))

    def upload(self, data: bytes) -> str:
        """Send data from the byte that the server asks for until it says that it is stored; return the digest."""
        digest = hashlib.sha256(data).hexdigest()

        def send(stub: Any) -> None:
            state = stub.GetUpload(artifact_pb2.GetUploadRequest(sha256=digest), timeout=CALL_SECONDS)
            if not state.complete:
                stub.Upload(self.pieces(data, digest, state.received), timeout=CALL_SECONDS)

        self.deployment.api.retry_while_unavailable(send, self.deadline, self.deployment.api.rotate_artifacts)
        self.uploaded.append(digest)
        return digest

    def pieces(self, data: bytes, digest: str, start: int) -> Any:
        """Yield the messages of an upload that goes on at byte `start`."""
        for offset in range(start, max(len(data), start + 1), PIECE):
            piece = artifact_pb2.UploadRequest(offset=offset, data=data[offset : offset + PIECE])
            if offset == start:
                piece.sha256, piece.size = digest, len(data)
            yield piece

    def finish(self) -> dict[str, Any]:
        return {"uploaded": self.uploaded}


class ImportScenario(UploadScenario):
    """A model is uploaded and imported under a name while the job runs."""

    def __init__(self, deployment: Deployment, variant: str, job: str) -> None:
        super().__init__(deployment, variant, job)
        self.named: dict[str, str] = {}

    def run(self) -> None:
        folder = self.deployment.stack.home / "data" / f"model-{self.job}"
        shutil.copytree(self.deployment.stack.home / "data" / "base", folder)
        draw = np.random.default_rng(list(self.job.encode()))
        save_file({"weight": draw.random((2, 2), dtype=np.float32)}, folder / "model.safetensors")
        name = f"model-{self.job}"
        request = artifact_pb2.ImportModelRequest(name=name)
        for path in sorted(folder.iterdir()):
            request.files.add(path=path.name, sha256=self.upload(path.read_bytes()))
        api = self.deployment.api
        answer = api.retry_while_unavailable(
            lambda stub: stub.ImportModel(request, timeout=CALL_SECONDS), self.deadline, api.rotate_artifacts
        )
        self.named[name] = answer.model.digest
        if answer.number != 1:
            self.problems.append(f"the first model called {name} has number {answer.number}")

    def finish(self) -> dict[str, Any]:
        return {**super().finish(), "named": self.named}


SCENARIOS: dict[str, type[Scenario]] = {
    "fork": ForkScenario,
    "delete": DeleteScenario,
    "release": DeleteScenario,
    "upload": UploadScenario,
    "import": ImportScenario,
}
