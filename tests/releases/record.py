"""Records a bucket of this version, for its successors to take over: `python -m tests.releases.record FOLDER`.

It writes FOLDER/bucket.zip, a store with jobs in every state of life, FOLDER/outcomes.json, how each of them ends when
this version goes on with it, and FOLDER/views.json, what the fold of each log says. Models and learner are the fakes of
the integration tests, so that the bits depend on no processor.
"""

import asyncio
import json
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.integration.orchestrator.test_api import serving
from tests.integration.orchestrator.world import World, deployment, put_rows

from quatrain.errors import RunFailed
from quatrain.storage.local import LocalStore
from quatrain.v1 import job_pb2

EPOCH = (1980, 1, 1, 0, 0, 0)
HALF_WAY = ("half-way", "half-way-stale", "in-reward", "paused", "queued")
"""Jobs that have not ended in the bucket; `paused` waits for somebody who resumes it."""


def pipeline(world: World, **ppo: Any) -> dict[str, Any]:
    """All three stages, with evaluations by a gold reward."""
    held_out = put_rows(world.store, [{"prompt": "ac"}, {"prompt": "bd"}])
    spec = world.spec(
        eval_prompts=held_out, eval_every=2, eval_gold={"functions": [{"path": "rewards:gold"}]}, steps=5, **ppo
    )
    rows = [{"prompt": "ab", "completion": "cd"}, {"prompt": "bc", "completion": "da"}] * 2
    pairs = [{"prompt": "ab", "chosen": "cd", "rejected": "dc"}] * 4
    spec["sft"] = {"data": put_rows(world.store, rows), "batch_size": 2}
    spec["reward"] = {"data": put_rows(world.store, pairs), "batch_size": 2, "min_accuracy": 0.0}
    return spec


async def finished(world: World) -> None:
    """Jobs that have ended in each of the ways, one with losses on its way, one with what retention released."""
    await world.submit(pipeline(world), "succeeded")
    await world.end_of("succeeded")
    async with serving(world) as api:
        change = {"ppo.kl.coef": "0.1", "ppo.steps": "7"}
        await api.call("ForkJob", job_pb2.ForkJobRequest(job_id="succeeded", new_job_id="forked", overrides=change))
        await world.end_of("forked")
        await world.submit(world.spec(steps=4), "deleted")
        await world.end_of("deleted")
        await api.call("PinCheckpoint", job_pb2.PinCheckpointRequest(job_id="forked", step=7, pinned=True))
        await api.call("DeleteCheckpoint", job_pb2.DeleteCheckpointRequest(job_id="deleted", step=2))
        await api.call("DeleteJob", job_pb2.DeleteJobRequest(job_id="deleted"))
    released = {**world.spec(steps=6), "checkpoint": {"every_steps": 1, "keep_last": 1, "keep_best": "kl/ref_seq"}}
    world.learners[0].die_at("Step", world.learners[0].calls["Step"] + 3, "after")
    await world.submit(released, "released")
    await world.end_of("released")
    world.learners[0].refusals["Step"] = [RunFailed("the loss was not finite five times in a row")]
    await world.submit(world.spec(), "failed")
    await world.end_of("failed")
    await stop_at(world, "cancelled", world.spec(steps=6), ("Step", 3), lambda: ask(world, "cancelled", "cancel"))
    await world.end_of("cancelled")


async def ask(world: World, job: str, intent: str) -> None:
    """Appends an intent as the API does."""
    data = {"now": False, "reason": "lunch"} if intent == "cancel" else {"reason": "lunch"}
    await world.ask(f"{intent}_requested", data, job)


async def stop_at(
    world: World, job: str, spec: dict[str, Any], call: tuple[str, int], then: Callable[[], Awaitable[None]]
) -> None:
    """Runs a job to a call of its learner, counted from now on, and lets the call be answered after `then`."""
    learner = world.learners[0]
    reached = asyncio.Event()

    async def hook() -> None:
        reached.set()
        await then()

    learner.hooks[call[0], learner.calls.get(call[0], 0) + call[1]] = hook
    await world.submit(spec, job)
    await reached.wait()


async def record(root: Path) -> None:
    """Makes the bucket in `root`/store."""
    store = LocalStore(root / "store")
    async with deployment(root / "first", store=store) as world:
        await finished(world)
        await stop_at(world, "paused", pipeline(world), ("Step", 6), lambda: ask(world, "paused", "pause"))
        await world.until(lambda: world.view("paused").state == "PAUSED", "PAUSED")
    cuts: tuple[tuple[str, Callable[[World], dict[str, Any]], tuple[str, int]], ...] = (
        ("half-way", lambda world: {**world.spec(steps=6), "checkpoint": {"every_steps": 2}}, ("Step", 4)),
        ("half-way-stale", lambda world: pipeline(world, staleness=1), ("Step", 8)),
        ("in-reward", pipeline, ("Export", 2)),
    )
    for job, spec, call in cuts:
        # Each in a store of its own: the next deployment would go on with the jobs that it finds.
        async with deployment(root / job, store=LocalStore(root / f"store-{job}")) as world:
            await stop_at(world, job, spec(world), call, lambda: asyncio.sleep(3600.0))
        shutil.copytree(root / f"store-{job}", root / "store", dirs_exist_ok=True)
    async with deployment(root / "last", store=store, schedulers=0) as world:
        await world.submit(world.spec(), "queued")


async def go_on(root: Path, store: LocalStore) -> None:
    """Brings the unfinished jobs of the bucket to their ends."""
    async with deployment(root, store=store) as world:
        await ask(world, "paused", "resume")
        for job in HALF_WAY:
            await world.end_of(job, 60.0)


def outcomes(store: LocalStore) -> dict[str, Any]:
    """How each job has ended, read from its events as they lie in the store."""
    found: dict[str, Any] = {}
    for job in jobs(store):
        log = [json.loads(store.get(stat.key)) for stat in store.list(f"jobs/{job}/events/")]
        of_type: dict[str, list[dict[str, Any]]] = {}
        for event in log:
            of_type.setdefault(event["type"], []).append(event["data"])
        found[job] = {
            "state": of_type["job_finished"][0]["state"],
            "models": {done["stage"]: done["model"]["digest"] for done in of_type.get("stage_completed", [])},
            "weights": {done["stage"]: done["weights_sha256"] for done in of_type.get("stage_completed", [])},
            "batches": {str(each["step"]): each["sha256"] for each in of_type.get("batch_sealed", [])},
            "evaluations": {str(each["step"]): each["metrics"] for each in of_type.get("evaluated", [])},
        }
    return found


def jobs(store: LocalStore) -> list[str]:
    """Ids of all jobs of the bucket."""
    return sorted({stat.key.split("/")[1] for stat in store.list("jobs/")})


def pack(store: Path, target: Path) -> None:
    """Writes the store as a zip that is the same for the same files."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as bucket:
        for path in sorted(path for path in store.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(str(path.relative_to(store)), EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            bucket.writestr(entry, path.read_bytes())


def main(folder: Path) -> None:
    """Write bucket and outcomes into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        asyncio.run(record(root))
        pack(root / "store", folder / "bucket.zip")
        shutil.copytree(root / "store", root / "copy")
        store = LocalStore(root / "copy")
        asyncio.run(go_on(root / "again", store))
        text = json.dumps(outcomes(store), indent=1, sort_keys=True)
        (folder / "outcomes.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
