from tests.unit.orchestrator.scenery import expected, make_plan

from quatrain.digests import sample_seed
from quatrain.orchestrator.rollout.sampling import chunks, make_tasks, rollout_rows, trainer_state
from quatrain.reward.runner.calling import TrainerState


def test_a_pass_over_the_prompts_meets_each_once_and_the_next_pass_in_another_order() -> None:
    plan = make_plan(prompts=12)

    first = [row.prompt_index for step in (1, 2) for row in rollout_rows(plan, step)]
    second = [row.prompt_index for step in (3, 4) for row in rollout_rows(plan, step)]

    assert sorted(first) == sorted(second) == list(range(12))
    assert [row.prompt_index for row in rollout_rows(plan, 1)] != [row.prompt_index for row in rollout_rows(plan, 3)]


def test_fewer_prompts_than_a_step_needs_wrap_with_samples_that_go_on() -> None:
    plan = make_plan(prompts=2, prompts_per_step=6, samples_per_prompt=2)

    rows = rollout_rows(plan, 1)

    assert [(row.prompt_index, row.sample_index) for row in rows] == [(p, s) for p in (0, 1) for s in range(6)]
    assert len({row.rollout_id for row in rows}) == 12
    assert len({row.seed for row in rows}) == 12


def test_rows_are_a_function_of_the_plan_alone() -> None:
    assert rollout_rows(make_plan(), 3) == rollout_rows(make_plan(), 3)


def test_seeds_are_those_of_the_interface() -> None:
    plan = make_plan()

    row = rollout_rows(plan, 2)[0]

    assert row.seed == sample_seed(1, "ppo", 2, row.prompt_index, row.sample_index)


def test_only_missing_chunks_become_tasks_and_the_cut_does_not_move() -> None:
    plan = make_plan()
    batch = expected(plan)

    tasks = make_tasks(plan, batch, 1, {1}, 60.0)

    assert [len(chunk) for chunk in chunks(plan, batch)] == [4, 2]
    assert [task.chunk for task in tasks] == [1]
    assert tuple(tasks[0].rows) == chunks(plan, batch)[1]
    assert tasks[0].policy.policy_version == 0


def test_a_reward_function_finds_the_step_under_our_names_and_those_of_transformers() -> None:
    state = TrainerState(trainer_state(make_plan(), 3))

    assert (state.job, state.step, state.total_steps) == ("job-1", 3, 5)
    assert (state.global_step, state.max_steps) == (3, 5)
