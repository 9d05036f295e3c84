"""ForkJob: from a PPO checkpoint of another job and changed fields to an accepted job.

A fork goes on where the checkpoint is: same step numbers, prompt order and seeds, so that an unchanged fork ends with
the same weights. Everything that it needs of its source is pinned in its spec.json, and the checkpoint is copied before
that is written: the source may be deleted afterwards.
"""

import asyncio
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from quatrain.digests import canonical_json, sha256_hex
from quatrain.errors import AlreadyExists, NotFound, Unavailable, WrongState
from quatrain.faults import fault_point
from quatrain.joblog import JobView
from quatrain.joblog.jobs import check_kept, cleanup_key
from quatrain.joblog.payloads import Forked
from quatrain.joblog.view import Checkpoint
from quatrain.jobspec import JobSpec, resolved_document
from quatrain.orchestrator.plan import Plan
from quatrain.orchestrator.submission.fork_pins import ForkResolver
from quatrain.orchestrator.submission.fork_spec import forked_spec, same_reward
from quatrain.orchestrator.submission.submit import Request, Resolved, Submitter, new_job_id
from quatrain.refs import ModelRef, ObjectRef
from quatrain.stages import POLICY_STAGE, REWARD, STAGES
from quatrain.storage import ObjectStore
from quatrain.storage.folders import MANIFEST, delete_prefix, fetch_folder, is_folder, manifest_bytes, read_manifest
from quatrain.storage.protocol import pages

ATTEMPT = 0
"""Attempt in the name of the copied checkpoint: no learner of the fork has written it."""


@dataclass(frozen=True)
class Fork:
    """A request for a fork, and its source as it is now. `step` None: the newest checkpoint."""

    source: Plan
    view: JobView
    step: int | None
    overrides: Mapping[str, str]
    owner: str
    job_id: str = ""
    request_id: str = ""


async def fork_job(submitter: Submitter, fork: Fork) -> str:
    """Make the new job and return its id.

    Raises InvalidSpec and InvalidData with the wrong fields, WrongState without any PPO checkpoint, NotFound without
    one of that step or when the source was deleted, AlreadyExists (the id is another request's), Unavailable.
    """
    job = new_job_id(fork.job_id, fork.owner, fork.request_id)
    asked = [fork.owner, fork.request_id, "fork", fork.source.job, fork.step, dict(fork.overrides)]
    fingerprint = sha256_hex(canonical_json(asked))
    if await submitter.existing(job, fingerprint) is not None:
        return job  # The fork stays, whatever has become of its source since.
    check_kept(fork.source.job, fork.view)
    checkpoint = _checkpoint(fork)
    spec = forked_spec(fork.source, fork.overrides, checkpoint.step)
    known = {each.name: getattr(submitter, each.name) for each in fields(submitter)}
    resolved = _with_value_init(await ForkResolver(**known, source=fork.source).resolve(spec), fork.source)
    fault_point("fork.before_copy")
    # If we die, the client may never ask again: this entry lets the sweeper find a copy without a job.
    await asyncio.to_thread(submitter.store.put, cleanup_key(job, 0), b"{}")
    copied = await asyncio.to_thread(_copy, submitter.store, fork.source.job, checkpoint, _prefix(job, checkpoint.step))
    fault_point("fork.after_copy")
    request = Request(resolved_document(spec), fingerprint, fork.owner)
    await submitter.create(job, resolved.document(request, _origin(fork, resolved.spec, copied, checkpoint.step)))
    return job


def _with_value_init(resolved: Resolved, source: Plan) -> Resolved:
    """Return the fork with the source's value_init, which says where its value model once began."""
    ppo = resolved.spec.ppo.model_copy(update={"value_init": source.spec.ppo.value_init})
    return replace(resolved, spec=resolved.spec.model_copy(update={"ppo": ppo}))


def _checkpoint(fork: Fork) -> Checkpoint:
    """Return the newest PPO checkpoint, or the newest one of the step."""
    found = {each.step: each for each in fork.view.checkpoints if each.stage == POLICY_STAGE.name}
    if not found:
        every = fork.source.spec.checkpoint.every_steps
        raise WrongState(
            f"job {fork.source.job!r} has no PPO checkpoint to start from; one is made every {every} PPO steps "
            "(checkpoint.every_steps) and at a pause"
        )
    step = max(found) if fork.step is None else fork.step
    if step not in found:
        there = ", ".join(map(str, sorted(found)))
        raise NotFound(
            f"job {fork.source.job!r} has no PPO checkpoint of step {step}; there are those of steps {there}"
        )
    return found[step]


def _prefix(job: str, step: int) -> str:
    return f"jobs/{job}/ppo/checkpoints/{step}-{ATTEMPT}"


def _copy(store: ObjectStore, source: str, checkpoint: Checkpoint, prefix: str) -> ObjectRef:
    """Copy a checkpoint file by file, each checked against the manifest, which comes last. Returns its reference."""
    old, digest = checkpoint.key.removesuffix(f"/{MANIFEST}"), checkpoint.manifest.sha256
    key = f"{prefix}/{MANIFEST}"
    try:
        files = read_manifest(store, old, digest)
        manifest = manifest_bytes(files)
        if store.stat(key) is None:  # Otherwise an earlier try of the request has made it.
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
        raise NotFound(f"checkpoint {checkpoint.step} of job {source!r} was deleted meanwhile") from error
    if not is_folder(store, prefix, digest):
        raise AlreadyExists(f"{prefix} holds another job's checkpoint: choose another new_job_id")
    return ObjectRef(key, digest, len(manifest))


def _discard(store: ObjectStore, prefix: str, manifest: str) -> None:
    """Delete what a failed copy has left, unless another try of the request has made it whole."""
    if store.stat(manifest) is None:
        delete_prefix(store, f"{prefix}/")


def _origin(fork: Fork, spec: JobSpec, checkpoint: ObjectRef, step: int) -> Forked:
    """Return all that the fork takes over of its source's history."""
    view, kept = fork.view, same_reward(spec.reward, fork.source.spec.reward)
    stages = [stage.name for stage in STAGES if stage is not POLICY_STAGE and (kept or not stage.makes_reward_model)]
    results = {stage: view.stage_results[stage] for stage in stages if stage in view.stage_results}
    return Forked(
        job=fork.source.job,
        step=step,
        checkpoint=checkpoint,
        stage_results=results,
        offset=view.offset if kept else None,
        value_model=_value_model(fork),
    )


def _value_model(fork: Fork) -> ModelRef | None:
    """Return the model whose architecture the checkpoint's value model has; None: the SFT model's."""
    source, trained = fork.source, fork.view.stage_results.get(REWARD.name)
    if source.forked_from is not None:
        return source.forked_from.value_model
    if source.spec.ppo.value_init != "reward":
        return None
    if trained is not None:
        return trained.model
    assert source.pinned.reward is not None, "a job without reward stage names its reward"
    return source.pinned.reward.models[0].ref
