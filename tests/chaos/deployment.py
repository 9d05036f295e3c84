"""A running stack with what a campaign needs of it: its specs, its store as others see it, its unbroken runs."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from tests.chaos.api import Api, Submission, Watcher, creation, forking
from tests.chaos.checker import FolderObjects, Objects, Outcome, S3Objects, outcome
from tests.chaos.jobs import FORK_STEP, VARIANTS, specs
from tests.chaos.stack import SETTINGS, ChaosStack, Flavour, running_chaos_stack
from tests.chaos.store_faults import faulty_minio
from tests.e2e.tasks import Spec

from quatrain.client import Client
from quatrain.jobspec import parse_spec, spec_to_proto
from quatrain.storage import ObjectStore
from quatrain.storage.local import LocalStore
from quatrain.v1 import spec_pb2

FLAVOURS = {
    "fake": Flavour("fake"),
    "links": Flavour("links", links=("generation", "reward", "reference", "learner", "redis")),
    "s3": Flavour("s3", links=("store",)),
    "large": Flavour("large", settings=SETTINGS | {"QUATRAIN_ROLLOUT__INLINE_BYTES": "0"}),
    "torch": Flavour("torch", fake=False),
}
OUTCOMES = {"delete": "fork", "release": "fork", "upload": "ppo", "import": "ppo"}
"""Variants that must have the outcome of another one."""
BUCKET = "chaos"
JOB_DEADLINE = 150.0


class Deployment:
    """One stack of a flavour. Make it with `deployed`."""

    def __init__(self, stack: ChaosStack, store: ObjectStore, objects: Objects) -> None:
        self.stack = stack
        self.store = store
        self.objects = objects
        self.api = Api([f"127.0.0.1:{process.port}" for process in stack.of_kind("orchestrator")])
        self._documents = specs(stack.home / "data", fake=stack.flavour.fake)
        self._specs: dict[str, spec_pb2.JobSpec] = {}
        self._unbroken: dict[str, Outcome] = {}
        self._seconds: dict[str, float] = {}

    def spec(self, variant: str) -> spec_pb2.JobSpec:
        """The spec of a variant; what it names is in the store."""
        variant = variant if variant in VARIANTS else "ppo"
        if variant not in self._specs:
            self._specs[variant] = self._upload(self._documents[variant])
        return self._specs[variant]

    def _upload(self, document: Spec) -> spec_pb2.JobSpec:
        with Client(f"127.0.0.1:{self.stack.processes['orchestrator-0'].port}") as client:
            resolved = client.submit(document, validate_only=True).resolved_spec
        assert resolved is not None, "a validated submission has its resolved spec"
        return spec_to_proto(parse_spec(resolved))

    def unbroken_seconds(self, variant: str) -> float:
        """How long the unbroken run of a variant took."""
        return self._seconds[OUTCOMES.get(variant, variant)]

    def unbroken(self, variant: str) -> Outcome:
        """The outcome of a run that nothing disturbed; the first call makes it."""
        variant = OUTCOMES.get(variant, variant)
        if variant not in self._unbroken:
            whole = self.unbroken("ppo") if variant == "fork" else None
            started = time.monotonic()
            job = f"unbroken-{variant}"
            self.stack.withdraw()
            make = forking("unbroken-ppo", FORK_STEP, job) if whole else creation(self.spec(variant), job)
            Submission(self.api, make, job).run(time.monotonic() + 60.0)
            watcher = Watcher(self.api, job)
            watcher.await_end(started + JOB_DEADLINE)
            self._seconds[variant] = time.monotonic() - started
            found = outcome(self.objects, job)
            if found.state != "SUCCEEDED":
                raise RuntimeError(f"the unbroken run of {variant} ended {found.state!r}\n{self.stack.logs()}")
            if whole is not None and found.weights != whole.weights:
                raise RuntimeError(f"an unchanged fork ended with other weights than its source\n{self.stack.logs()}")
            self._unbroken[variant] = found
        return self._unbroken[variant]


@contextmanager
def deployed(home: Path, name: str) -> Iterator[Deployment]:
    """A stack of the flavour `name` in `home`."""
    flavour = FLAVOURS[name]
    with ExitStack() as stack:
        store_faults = None
        if name == "s3":
            server, store_faults = stack.enter_context(faulty_minio(home / "minio"))
            flavour = replace(flavour, storage=server.environment(BUCKET, f"127.0.0.1:{store_faults.port}"))
            from quatrain.storage.s3 import S3Store

            s3 = S3Store(server.address(BUCKET))
            s3.ensure_bucket(create=True)
            store: ObjectStore = s3
            objects: Objects = S3Objects(server.endpoint, BUCKET, server.access_key, server.secret_key)
        else:
            store, objects = LocalStore(home / "store"), FolderObjects(home / "store")
        running = stack.enter_context(running_chaos_stack(home, flavour))
        running.store_faults = store_faults
        deployment = Deployment(running, store, objects)
        stack.callback(deployment.api.close)
        yield deployment
