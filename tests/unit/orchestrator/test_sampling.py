import json

from tests.unit.orchestrator.scenery import expected, make_plan

from quatrain.digests import sample_seed
from quatrain.orchestrator.rollout.sampling import make_task, rollout_samples, trainer_state
from quatrain.orchestrator.rollout.wire import decode_task, encode_task
from quatrain.reward.runner.calling import TrainerState


def test_a_pass_over_the_prompts_meets_each_once_and_the_next_pass_in_another_order() -> None:
    plan = make_plan(prompts=12)

    first = [row.prompt_index for step in (1, 2) for row in rollout_samples(plan, step)]
    second = [row.prompt_index for step in (3, 4) for row in rollout_samples(plan, step)]

    assert sorted(first) == sorted(second) == list(range(12))
    assert [row.prompt_index for row in rollout_samples(plan, 1)] != [
        row.prompt_index for row in rollout_samples(plan, 3)
    ]


def test_fewer_prompts_than_a_step_needs_wrap_with_samples_that_go_on() -> None:
    plan = make_plan(prompts=2, prompts_per_step=6, samples_per_prompt=2)

    rows = rollout_samples(plan, 1)

    assert [(row.prompt_index, row.sample_index) for row in rows] == [(p, s) for p in (0, 1) for s in range(6)]
    assert len({row.rollout_id for row in rows}) == 12
    assert len({row.seed for row in rows}) == 12


def test_rows_are_a_function_of_the_plan_alone() -> None:
    assert rollout_samples(make_plan(), 3) == rollout_samples(make_plan(), 3)


def test_seeds_are_those_of_the_interface() -> None:
    plan = make_plan()

    row = rollout_samples(plan, 2)[0]

    assert row.seed == sample_seed(1, "ppo", 2, row.prompt_index, row.sample_index)


def test_the_cut_of_a_batch_into_tasks_is_fixed_by_the_spec() -> None:
    plan = make_plan()
    batch = expected(plan)

    tasks = [make_task(plan, batch, 1, chunk, 60.0) for chunk in range(batch.chunks(plan.spec.ppo.chunk_size))]

    assert [len(task.samples) for task in tasks] == [4, 2]
    assert [task.chunk for task in tasks] == [0, 1]
    assert tasks[0].samples + tasks[1].samples == batch.samples
    assert tasks[1].policy.policy_version == 0
    assert decode_task(encode_task(tasks[1])) == tasks[1]


def test_a_reward_function_finds_the_step_under_our_names_and_those_of_transformers() -> None:
    state = TrainerState(json.loads(trainer_state(make_plan(), 3).to_text()))

    assert (state.job, state.step, state.total_steps) == ("job-1", 3, 5)
    assert (state.global_step, state.max_steps) == (3, 5)
