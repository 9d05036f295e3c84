"""Good histories of real orchestrators with fake models, and copies of them to damage. Made once in a session.

The only place here that runs the code under test.
"""

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.protobuf.json_format import MessageToDict
from tests.chaos.checker import Cancel, Connection, Created, Fault, FolderObjects, Observed, Start, Verdict, examine
from tests.chaos.checker.history import Event, read_history
from tests.chaos.checker.objects import sha256
from tests.chaos.checker.tables import canonical
from tests.integration.orchestrator.conftest import QUICK
from tests.integration.orchestrator.test_api import Api, serving
from tests.integration.orchestrator.world import World, deployment, put_rows, run

from quatrain.orchestrator.retention.sweep import Sweeper
from quatrain.storage.local import LocalStore
from quatrain.v1 import job_pb2

PATIENCE = 45.0
SLOW_ON_PURPOSE = "RECOVERY_SECONDS"
"""Waits that the checker looks at keep their length."""


@dataclass
class Story:
    """A finished job in a folder store, and what was seen from outside."""

    root: Path
    job: str
    observed: Observed

    @property
    def store(self) -> Path:
        return self.root / "store"

    def examine(self, unbroken: "Story | None" = None, **changes: Any) -> Verdict:
        other = None if unbroken is None else (FolderObjects(unbroken.store), unbroken.job)
        observed = Observed(**{**vars(self.observed), **changes})
        return examine(FolderObjects(self.store), self.job, observed, other)

    def copy(self, root: Path) -> "Copy":
        shutil.copytree(self.store, root / "store")
        return Copy(root, self.job, self.observed)


@dataclass
class Copy(Story):
    """A copy whose history can be forged: what names a changed object names the new digest."""

    forged: int = field(default=0)

    def path(self, key: str) -> Path:
        return self.store / key

    def pinned(self) -> dict[str, Any]:
        section: dict[str, Any] = read_history(FolderObjects(self.store), self.job).pinned
        return section

    def events(self, *types: str) -> list[Event]:
        """The events of these types, of all without any."""
        history = read_history(FolderObjects(self.store), self.job)
        return list(history.of(*types)) if types else history.events

    def at(self, revision: int) -> Event:
        return next(event for event in self.events() if event.revision == revision)

    def event_path(self, revision: int) -> Path:
        return self.path(f"jobs/{self.job}/events/{revision:010d}")

    def change(self, event: Event, **fields: Any) -> None:
        """Writes an event anew; fields of the event itself are `epoch_`, `attempt_` and the like."""
        document = json.loads(self.event_path(event.revision).read_bytes())
        for name, value in fields.items():
            if name.endswith("_"):
                document[name.removesuffix("_")] = value
            else:
                document["data"][name] = value
        self.event_path(event.revision).write_bytes(json.dumps(document).encode())

    def insert(self, after: int, like: Event, **fields: Any) -> None:
        """Puts an event like another one behind revision `after`; the later ones move on by one."""
        last = self.events()[-1].revision
        document = json.loads(self.event_path(like.revision).read_bytes())
        for revision in range(last, after, -1):
            moved = json.loads(self.event_path(revision).read_bytes()) | {"revision": revision + 1}
            self.event_path(revision + 1).write_bytes(json.dumps(moved).encode())
        self.forged += 1
        document |= {"revision": after + 1, "nonce": f"forged-{self.forged}"}
        self.event_path(after + 1).write_bytes(json.dumps(document).encode())
        self.change(self.at(after + 1), **fields)

    def change_rows(self, event: Event, change: Callable[[list[dict[str, Any]]], Any]) -> None:
        """Changes the rows of a sealed batch, and the digest in its event."""
        ref = event.data
        table = pq.read_table(self.path(ref["key"]))
        rows = table.to_pylist()
        change(rows)
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), sink)
        data = sink.getvalue().to_pybytes()
        self.path(ref["key"]).write_bytes(data)
        self.change(event, sha256=sha256(data), size=len(data))

    def add_file(self, event: Event, name: str, data: bytes) -> None:
        """Adds a file to a checkpoint, and the digest of the new manifest to its event."""
        manifest_path = self.path(event.data["key"])
        manifest = json.loads(manifest_path.read_bytes())
        manifest["files"][name] = {"sha256": sha256(data), "size": len(data)}
        (manifest_path.parent / name).write_bytes(data)
        manifest_path.write_bytes(canonical(manifest))
        self.change(event, sha256=sha256(canonical(manifest)), size=len(canonical(manifest)))


class Stories:
    """Each is played when it is first asked for.

    `plain`; `broken`: the same job through a lost learner and a takeover; `staged`: SFT and stale PPO through a lost
    learner; `staged-plain`: the same unbroken; `paused`: a pause, with retention; `cancelled`; `forked`: of a job that
    stays; `released`: a checkpoint is deleted after the end; `deleted`: that, and then the job.
    """

    def __init__(self, folders: pytest.TempPathFactory) -> None:
        self._folders = folders
        self._played: dict[str, Story] = {}

    def __getitem__(self, name: str) -> Story:
        if name not in self._played:
            with pytest.MonkeyPatch.context() as patch:
                for module, constants in QUICK.items():
                    for constant, value in constants.items():
                        if constant != SLOW_ON_PURPOSE:
                            patch.setattr(import_module(f"quatrain.orchestrator.{module}"), constant, value)
                self._played[name] = _play(self._folders.mktemp(name), name, PLAYS[name])
        return self._played[name]


@pytest.fixture(scope="session")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Stories:
    return Stories(tmp_path_factory)


def _play(root: Path, name: str, play: "Play") -> Story:
    made: list[Story] = []

    async def scenario() -> None:
        async with deployment(root, store=LocalStore(root / "store")) as world, serving(world) as api:
            observed = await play(world, api, name)
            await world.until(lambda: not (root / "store/active" / name).exists(), "the job left the index", PATIENCE)
            made.append(Story(root, name, observed))

    run(scenario, 2 * PATIENCE)
    return made[0]


Play = Callable[[World, Api, str], Awaitable[Observed]]


async def _plain(world: World, api: Api, job: str) -> Observed:
    await world.submit(_ppo(world), job)
    watches = await asyncio.gather(_watch(api, job, [1, 4, 1000]), _watch(api, job, [1000]))
    end = list(read_history(FolderObjects(world.root / "store"), job).events)[-1].time
    late = [Connection(3, await _messages(api, job, 3), ended=True)]
    return Observed(
        created=[Created("one", job), Created("one", job), Created("one", ""), Created("two", job)],
        watches=[*watches, late],
        redis_left=[],
        index_left=False,
        redis_memory=[1_000_000, 1_400_000, 1_000_000],
        faults=[Fault("generation away", end - 0.01, 5.0), Fault("learner killed after the end", end + 1.0, 5.0)],
        starts=[Start("learner", end + number) for number in range(3)],
    )


async def _broken(world: World, api: Api, job: str) -> Observed:
    world.learners[0].die_at("Step", 2)
    await world.submit(_ppo(world), job)
    await world.until(lambda: world.view(job).step >= 2, "step 2", PATIENCE)
    world.start_scheduler("owner-1")
    await world.schedulers[0].stop()
    await world.end_of(job, PATIENCE)
    return Observed()


async def _staged(world: World, api: Api, job: str) -> Observed:
    if job == "staged":
        world.learners[0].die_at("Step", 4, "after")
    rows = [{"prompt": "ab", "completion": "cd"}, {"prompt": "bc", "completion": "da"}] * 2
    spec = _ppo(world, staleness=1, samples_per_prompt=2)
    await world.submit({**spec, "sft": {"data": put_rows(world.store, rows), "batch_size": 2}}, job)
    await world.end_of(job, PATIENCE)
    return Observed()


async def _paused(world: World, api: Api, job: str) -> Observed:
    """With a checkpoint at every step, of which retention keeps the newest; one is pinned."""
    spec = _ppo(world, steps=8, staleness=1)
    await world.submit({**spec, "checkpoint": {"every_steps": 1, "keep_last": 1}}, job)
    await world.until(lambda: world.view(job).step >= 2, "step 2", PATIENCE)
    await api.call("PauseJob", job_pb2.PauseJobRequest(job_id=job, reason="enough"))
    await world.until(lambda: world.view(job).state == "PAUSED", "PAUSED", PATIENCE)
    step = world.view(job).checkpoints[-1].step
    await api.call("PinCheckpoint", job_pb2.PinCheckpointRequest(job_id=job, step=step, pinned=True))
    await api.call("ResumeJob", job_pb2.ResumeJobRequest(job_id=job))
    await world.end_of(job, PATIENCE)
    return Observed()


async def _forked(world: World, api: Api, job: str) -> Observed:
    """From the first checkpoint of `origin`, which stays."""
    await world.submit(_ppo(world, staleness=1, eval_every=1), "origin")
    await world.end_of("origin", PATIENCE)
    await world.until(lambda: not (world.root / "store/active/origin").exists(), "origin left the index", PATIENCE)
    kept = _digests(world)
    await api.call("ForkJob", job_pb2.ForkJobRequest(job_id="origin", step=2, new_job_id=job))
    await world.end_of(job, PATIENCE)
    return Observed(kept=kept)


async def _released(world: World, api: Api, job: str) -> Observed:
    """A finished job of which somebody deletes a checkpoint."""
    await world.submit(_ppo(world), job)
    await world.end_of(job, PATIENCE)
    await world.until(lambda: not (world.root / "store/active" / job).exists(), "the job left the index", PATIENCE)
    await asyncio.to_thread(Sweeper(world.store, "sweeper", 1.0).clean_all)
    kept = _digests(world)
    await api.call("DeleteCheckpoint", job_pb2.DeleteCheckpointRequest(job_id=job, step=2))
    await asyncio.to_thread(Sweeper(world.store, "sweeper", 1.0).clean_all)
    return Observed(cleanup_left=bool(world.store.list(f"cleanup/{job}/")), kept=kept)


async def _deleted(world: World, api: Api, job: str) -> Observed:
    """Another job is there, which stays."""
    await world.submit(_ppo(world), "other")
    await world.end_of("other", PATIENCE)
    seen = await _released(world, api, job)
    await api.call("DeleteJob", job_pb2.DeleteJobRequest(job_id=job, reason="enough"))
    await asyncio.to_thread(Sweeper(world.store, "sweeper", 1.0).clean_all)
    return Observed(cleanup_left=bool(world.store.list(f"cleanup/{job}/")), kept=seen.kept)


def _digests(world: World) -> dict[str, str]:
    objects = FolderObjects(world.root / "store")
    keys = [key for folder in ("jobs/", "models/", "data/") for key in objects.list(folder)]
    return {key: sha256(objects.get(key)) for key in keys}


async def _cancelled(world: World, api: Api, job: str) -> Observed:
    await world.submit(_ppo(world, steps=60), job)
    await world.until(lambda: world.view(job).step >= 1, "step 1", PATIENCE)
    await api.call("CancelJob", job_pb2.CancelJobRequest(job_id=job, reason="enough"))
    await world.end_of(job, PATIENCE)
    return Observed(cancel=Cancel(requested=100.0, finished=103.0, bound=30.0))


PLAYS: dict[str, Play] = {
    "plain": _plain,
    "broken": _broken,
    "staged-plain": _staged,
    "staged": _staged,
    "paused": _paused,
    "cancelled": _cancelled,
    "forked": _forked,
    "released": _released,
    "deleted": _deleted,
}


def _ppo(world: World, **ppo: Any) -> dict[str, Any]:
    held_out = put_rows(world.store, [{"prompt": "ac"}, {"prompt": "bd"}])
    return world.spec(**{"steps": 4, "eval_prompts": held_out, "eval_every": 2, **ppo})


async def _watch(api: Api, job: str, lengths: list[int]) -> list[Connection]:
    """A watcher whose connections are cut after so many messages each."""
    connections: list[Connection] = []
    revision = 0
    for most in lengths:
        messages = await _messages(api, job, revision, most)
        connections.append(Connection(revision, messages, ended=len(messages) < most))
        revision = int(messages[-1].get("revision", 0))
    return connections


async def _messages(api: Api, job: str, after: int, most: int = 1000) -> list[dict[str, Any]]:
    request = job_pb2.WatchJobRequest(job_id=job, after_revision=after)
    messages = await api.stream("WatchJob", request, most)
    return [MessageToDict(message, preserving_proto_field_name=True) for message in messages]
