"""The life of a job from its submission to its end, with fake models behind real servers."""

from pathlib import Path

from tests.integration.orchestrator.world import deployment, run


def test_a_ppo_job_runs_to_its_end_and_leaves_nothing_in_the_queue(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path) as world:
            await world.submit(world.spec())
            view = await world.end_of()
            assert (view.state, view.error, view.conditions) == ("SUCCEEDED", None, {})
            kinds = [event.type for event in world.events()]
            step = ["batch_sealed", "step_completed"]
            assert [kind for kind in kinds if kind != "state_changed"] == [
                "owner_taken",
                "stage_started",
                "policy_published",
                "learner_opened",
                *step,
                *step,
                "checkpoint",
                "policies_released",
                *step,
                "checkpoint",
                "stage_completed",
                "job_finished",
            ]
            states = [event.data["state"] for event in world.events(kind="state_changed")]
            assert states == ["STARTING", "RUNNING"]
            await world.until(lambda: not world.store.list("active/"), "the job stayed in the index")
            assert await world.queue.read_results("job-1", "0", count=9, block=0.0) == []
            assert (await world.queue.backlog("default")).waiting == 0

    run(scenario)
