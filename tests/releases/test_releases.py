"""Buckets of earlier versions: this one shows their jobs as they did, and brings them to the same bits."""

import asyncio
import json
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from tests.integration.orchestrator.test_api import serving
from tests.integration.orchestrator.world import deployment, run
from tests.releases.record import go_on, jobs, outcomes

from quatrain.joblog import JobLog, JobView
from quatrain.storage.local import LocalStore
from quatrain.v1 import job_pb2

HERE = Path(__file__).parent
RELEASES = sorted(path.parent.name for path in HERE.glob("*/bucket.zip"))
STATES = {
    "cancelled": "CANCELLED",
    "failed": "FAILED",
    "forked": "SUCCEEDED",
    "half-way": "RUNNING",
    "half-way-stale": "RUNNING",
    "in-reward": "RUNNING",
    "paused": "PAUSED",
    "queued": "QUEUED",
    "released": "SUCCEEDED",
    "succeeded": "SUCCEEDED",
}


def bucket(release: str, folder: Path) -> LocalStore:
    with zipfile.ZipFile(HERE / release / "bucket.zip") as packed:
        packed.extractall(folder)
    return LocalStore(folder)


def known(release: str, name: str) -> Any:
    return json.loads((HERE / release / f"{name}.json").read_bytes())


@pytest.mark.parametrize("release", RELEASES)
def test_logs_of_earlier_versions_still_fold(release: str, tmp_path: Path) -> None:
    store = bucket(release, tmp_path)
    expected = known(release, "views")
    assert jobs(store) == sorted(expected)
    for job, facts in expected.items():
        log = JobLog(store, job)
        log.refresh()
        assert facts_of(log.view) == facts, job


@pytest.mark.parametrize("release", RELEASES)
def test_jobs_of_earlier_versions_are_listed_and_shown(release: str, tmp_path: Path) -> None:
    store = bucket(release, tmp_path / "store")

    async def scenario() -> None:
        async with deployment(tmp_path / "world", store=store, schedulers=0) as world, serving(world) as api:
            listed = (await api.call("ListJobs", job_pb2.ListJobsRequest())).jobs
            assert {job.id: job_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_") for job in listed} == STATES
            for job in STATES:
                shown = (await api.call("GetJob", job_pb2.GetJobRequest(job_id=job))).job
                stored = json.loads(store.get(f"jobs/{job}/spec.json"))
                assert json.loads(shown.resolved_spec_json) == stored["spec"]
                assert shown.spec.name == stored["request"]["name"]
                events = (await api.call("ListEvents", job_pb2.ListEventsRequest(job_id=job))).events
                keys = [stat.key for stat in store.list(f"jobs/{job}/events/")]
                assert [json.loads(event.data_json) for event in events] == [
                    json.loads(store.get(key))["data"] for key in keys
                ]

    run(scenario)


@pytest.mark.parametrize("release", RELEASES)
def test_jobs_of_earlier_versions_end_with_the_same_bits(release: str, tmp_path: Path) -> None:
    store = bucket(release, tmp_path / "store")
    asyncio.run(go_on(tmp_path / "world", store))
    assert outcomes(store) == known(release, "outcomes")


def facts_of(view: JobView) -> dict[str, Any]:
    """The view as JSON, in the shape of views.json."""
    return {
        "revision": view.revision,
        "state": view.state,
        "reason": view.reason,
        "stage": view.stage,
        "step": view.step,
        "total_steps": view.total_steps,
        "epoch": view.epoch,
        "attempt": view.attempt,
        "owner": view.owner,
        "takeovers": view.owners_without_progress,
        "elapsed": view.elapsed,
        "stage_began": view.stage_began,
        "policy_version": view.policy_version,
        "policies": {str(version): policy.to_json() for version, policy in view.policies.items()},
        "released_policies": sorted(view.released_policies),
        "sealed": {
            str(step): sealed.batch.to_json()
            | {name: getattr(sealed, name) for name in ("policy_version", "rollouts", "skipped", "refused")}
            for step, sealed in view.sealed.items()
        },
        "tokens": {str(step): ref.to_json() for step, ref in view.tokens.items()},
        "completed": view.completed,
        "metrics": {
            stage: [{"step": row.step, "attempt": row.attempt, **row.values} for row in rows]
            for stage, rows in view.metrics.items()
        },
        "checkpoints": [
            each.manifest.to_json() | {name: getattr(each, name) for name in ("stage", "step", "attempt", "revision")}
            for each in view.checkpoints
        ],
        "released": {
            key: {name: getattr(each, name) for name in ("stage", "step", "reason", "revision")}
            for key, each in view.released.items()
        },
        "pinned": sorted(view.pinned),
        "stage_results": {
            stage: {"model": result.model.to_json(), "weights_sha256": result.weights_sha256}
            for stage, result in view.stage_results.items()
        },
        "evaluations": {
            str(step): each.batch.to_json() | {"metrics": each.metrics} for step, each in view.evaluations.items()
        },
        "offset": None if view.offset is None else view.offset.to_json(),
        "conditions": view.conditions,
        "intents": {
            name: intent.to_json()
            for name, intent in (("cancel", view.intents.cancel), ("pause", view.intents.pause))
            if intent is not None
        },
        "forked": None if view.forked is None else {"job": view.forked.job, "step": view.forked.step},
        "failures": [each.to_json() for each in view.failures],
        "error": None if view.error is None else view.error.to_json(),
        "deleted": None if view.deleted is None else asdict(view.deleted),
        "create_time": view.create_time,
        "update_time": view.update_time,
    }
