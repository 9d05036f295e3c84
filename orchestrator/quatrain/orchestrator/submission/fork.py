"""ForkJob: from a PPO checkpoint of another job and changed fields to an accepted job.

A fork goes on where the checkpoint is: same step numbers, prompt order and seeds, so that an unchanged fork ends with
the same weights. Everything that it needs of its source is pinned in its spec.json, and the checkpoint is copied before
that is written: the source may be deleted afterwards.
"""

import asyncio
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from quatrain.digests import canonical_json, sha256_hex
from quatrain.errors import AlreadyExists, NotFound, Unavailable, WrongState
from quatrain.faults import fault_point
from quatrain.joblog import JobView
from quatrain.joblog.jobs import check_kept, cleanup_key
from quatrain.jobspec import resolved_document
from quatrain.orchestrator.submission.fork_pins import ForkResolver
from quatrain.orchestrator.submission.fork_spec import forked_spec, same_reward
from quatrain.orchestrator.submission.submit import Submitter, new_job_id
from quatrain.refs import ModelRef
from quatrain.storage import ObjectStore
from quatrain.storage.folders import MANIFEST, delete_prefix, fetch_folder, is_folder, manifest_bytes, read_manifest
from quatrain.storage.listing import pages

ATTEMPT = 0
"""Of the copied checkpoint: no learner of the fork has written it."""


@dataclass(frozen=True)
class Fork:
    """What a client asked for, and the source as it is now. `step` None: the newest checkpoint."""

    source: str
    document: dict[str, Any]
    view: JobView
    step: int | None
    overrides: Mapping[str, str]
    owner: str
    job_id: str = ""
    request_id: str = ""


async def fork_job(submitter: Submitter, fork: Fork) -> str:
    """Id of the new job.

    Raises InvalidSpec and InvalidData with the wrong fields, WrongState without any PPO checkpoint, NotFound without
    one of that step or when the source was deleted, AlreadyExists (the id is another request's), Unavailable.
    """
    job = new_job_id(fork.job_id, fork.owner, fork.request_id)
    asked = [fork.owner, fork.request_id, "fork", fork.source, fork.step, dict(fork.overrides)]
    fingerprint = sha256_hex(canonical_json(asked))
    if await submitter.existing(job, fingerprint) is not None:
        return job  # Whatever has become of the source since.
    check_kept(fork.source, fork.view)
    checkpoint = _checkpoint(fork)
    step = int(checkpoint["step"])
    spec = forked_spec(fork.document, fork.overrides, step)
    known = {each.name: getattr(submitter, each.name) for each in fields(submitter)}
    document = await ForkResolver(**known, before=fork.document).resolve(spec)
    document["spec"]["ppo"]["value_init"] = fork.document["spec"]["ppo"]["value_init"]
    fault_point("fork.before_copy")
    # Whoever asks may never ask again if we die: the sweeper looks after what has no job.
    await asyncio.to_thread(submitter.store.put, cleanup_key(job, 0), b"{}")
    copied = await asyncio.to_thread(_copy, submitter.store, fork.source, checkpoint, _prefix(job, step))
    fault_point("fork.after_copy")
    document |= {
        "request": resolved_document(spec),
        "fingerprint": fingerprint,
        "owner": fork.owner,
        "forked_from": _origin(fork, document["spec"], copied, step),
    }
    await submitter.create(job, document)
    return job


def _checkpoint(fork: Fork) -> dict[str, Any]:
    """The newest PPO checkpoint, or the newest one of the step."""
    found = {int(ref["step"]): ref for ref in fork.view.checkpoints if ref["stage"] == "ppo"}
    if not found:
        every = fork.document["spec"]["checkpoint"]["every_steps"]
        raise WrongState(
            f"job {fork.source!r} has no PPO checkpoint to start from; one is made every {every} PPO steps "
            "(checkpoint.every_steps) and at a pause"
        )
    step = max(found) if fork.step is None else fork.step
    if step not in found:
        there = ", ".join(map(str, sorted(found)))
        raise NotFound(f"job {fork.source!r} has no PPO checkpoint of step {step}; there are those of steps {there}")
    return found[step]


def _prefix(job: str, step: int) -> str:
    return f"jobs/{job}/ppo/checkpoints/{step}-{ATTEMPT}"


def _copy(store: ObjectStore, source: str, checkpoint: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Copies a checkpoint, file by file, each checked against the manifest, which comes last. Its new reference."""
    old = str(checkpoint["key"]).removesuffix(f"/{MANIFEST}")
    key = f"{prefix}/{MANIFEST}"
    try:
        files = read_manifest(store, old, checkpoint["sha256"])
        manifest = manifest_bytes(files)
        if store.stat(key) is None:  # Else an earlier try of the request has made it.
            with tempfile.TemporaryDirectory(prefix="quatrain-fork-") as folder:
                for name, entry in files.items():
                    fetch_folder(store, old, {name: entry}, Path(folder))
                    store.put_file(f"{prefix}/{name}", Path(folder) / name)
                    (Path(folder) / name).unlink()
                    fault_point("fork.between_files")
            fault_point("fork.before_manifest")
            there = {stat.key for page in pages(store, f"{prefix}/") for stat in page}
            if not there >= {f"{prefix}/{name}" for name in files}:
                raise Unavailable("an abandoned copy for this fork was deleted just now: send the request again")
            store.put_if_absent(key, manifest)
    except NotFound as error:
        _discard(store, prefix, key)
        raise NotFound(f"checkpoint {checkpoint['step']} of job {source!r} was deleted meanwhile") from error
    if not is_folder(store, prefix, checkpoint["sha256"]):
        raise AlreadyExists(f"{prefix} holds another job's checkpoint: choose another new_job_id")
    return {"key": key, "sha256": checkpoint["sha256"], "size": len(manifest)}


def _discard(store: ObjectStore, prefix: str, manifest: str) -> None:
    """Deletes what a copy that failed has left, unless another try of the request has made it whole."""
    if store.stat(manifest) is None:
        delete_prefix(store, f"{prefix}/")


def _origin(fork: Fork, spec: dict[str, Any], checkpoint: dict[str, Any], step: int) -> dict[str, Any]:
    """Data of the event `forked`: all that the fork takes over of its source's history."""
    view, kept = fork.view, same_reward(spec["reward"], fork.document["spec"]["reward"])
    stages = ("sft", "reward") if kept else ("sft",)
    return {
        "job": fork.source,
        "step": step,
        "checkpoint": checkpoint,
        "stage_results": {stage: view.stage_results[stage] for stage in stages if stage in view.stage_results},
        "offset": view.offset if kept else None,
        "value_model": _value_model(fork),
    }


def _value_model(fork: Fork) -> dict[str, str] | None:
    """The model whose architecture the checkpoint's value model has; None: the SFT model's."""
    document, trained = fork.document, fork.view.stage_results.get("reward")
    if document.get("forked_from") is not None:
        inherited: dict[str, str] | None = document["forked_from"]["value_model"]
        return inherited
    if document["spec"]["ppo"]["value_init"] != "reward":
        return None
    model = document["pinned"]["reward"]["models"][0] if trained is None else trained["model"]
    return ModelRef.from_json(model).to_json()
