"""PauseJob, ResumeJob and CancelJob over gRPC: who asked and why is in the log, asking twice is as good as once."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.integration.orchestrator.test_api import Api, create, idle, serving
from tests.integration.orchestrator.world import deployment, run

from quatrain.errors import NotFound, WrongState
from quatrain.v1 import job_pb2


async def ask(api: Api, method: str, **fields: Any) -> str:
    answer = await api.call(f"{method}Job", getattr(job_pb2, f"{method}JobRequest")(job_id="job-1", **fields))
    return job_pb2.JobState.Name(answer.job.state).removeprefix("JOB_STATE_")


def test_a_job_without_an_owner_is_paused_and_resumed_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with idle(tmp_path) as (world, api):
            await api.call("CreateJob", create(world, job_id="job-1"))
            assert await ask(api, "Resume") == "QUEUED", "nothing to end"
            assert [await ask(api, "Pause", reason="lunch") for _ in range(2)] == ["PAUSED"] * 2
            assert [await ask(api, "Resume", reason="back") for _ in range(2)] == ["QUEUED"] * 2
            assert await ask(api, "Pause") == "PAUSED"
            assert await ask(api, "Cancel", reason="enough") == "PAUSED"
            with pytest.raises(WrongState, match="is being cancelled"):
                await ask(api, "Pause")
            page = await api.call("ListEvents", job_pb2.ListEventsRequest(job_id="job-1"))
            assert [(event.type, json.loads(event.data_json)["reason"], event.actor) for event in page.events] == [
                ("pause_requested", "lunch", "local"),
                ("resume_requested", "back", "local"),
                ("pause_requested", "", "local"),
                ("cancel_requested", "enough", "local"),
            ]
            for method in ("Pause", "Resume"):
                with pytest.raises(NotFound):
                    await api.call(f"{method}Job", getattr(job_pb2, f"{method}JobRequest")(job_id="nobody"))

    run(scenario)


def test_a_finished_job_can_neither_be_paused_nor_resumed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path) as world, serving(world) as api:
            await world.submit(world.spec(steps=1))
            await world.end_of()
            for method, word in (("Pause", "cannot be paused"), ("Resume", "quatrain job fork job-1")):
                with pytest.raises(WrongState, match=word):
                    await ask(api, method)
            assert await ask(api, "Cancel") == "SUCCEEDED"

    run(scenario)


def test_a_watcher_sees_the_pause_and_what_comes_after_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, workers=0) as world, serving(world) as api:
            await world.submit(world.spec())
            await world.until(lambda: world.view().state == "RUNNING", "RUNNING")
            await ask(api, "Pause", reason="lunch")
            await world.until(lambda: world.view().state == "PAUSED", "PAUSED")
            seen = world.view().revision

            async def go_on() -> None:
                await ask(api, "Resume")
                world.start_worker()

            world.keep(go_on())
            messages = await api.stream("WatchJob", job_pb2.WatchJobRequest(job_id="job-1", after_revision=seen))
            assert [message.revision for message in messages if message.HasField("event")] == list(
                range(seen + 1, messages[-1].revision + 1)
            )
            assert messages[0].event.type == "resume_requested"
            states = [job_pb2.JobState.Name(message.job.state).removeprefix("JOB_STATE_") for message in messages]
            assert list(dict.fromkeys(states)) == ["QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]

    run(scenario)
