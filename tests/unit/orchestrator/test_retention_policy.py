"""The keep rule as a function of the log: whatever happens, in whatever order, what may be needed stays."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.orchestrator.scenery import make_plan

from quatrain.joblog import Event, JobView, apply
from quatrain.joblog.payloads import payload_from
from quatrain.jobspec import CheckpointSpec, JobSpec
from quatrain.orchestrator.retention.policy import KeepPolicy, kept_checkpoints, needed_versions, next_release

PPO_FIELDS = ("steps", "staleness", "eval_prompts", "eval_every")


def spec(**fields: Any) -> JobSpec:
    plan = make_plan(**{"steps": 100} | {name: value for name, value in fields.items() if name in PPO_FIELDS})
    rule = {name: value for name, value in fields.items() if name not in PPO_FIELDS}
    checkpoint = CheckpointSpec(**{"every_steps": 2, **rule})
    return plan.spec.model_copy(update={"checkpoint": checkpoint})


class Story:
    """A log that grows by what really happens in jobs: steps, checkpoints, losses, pins, evaluations."""

    def __init__(self, resolved: JobSpec) -> None:
        self.spec = resolved
        self.view = JobView("j")
        self.add("policy_published", {"stage": "ppo", "step": 0, "model": self.model(0, "sha256:0")})

    def add(self, kind: str, data: dict[str, Any]) -> None:
        apply(self.view, Event(payload_from(kind, data), "x", attempt=1, revision=self.view.revision + 1))

    @staticmethod
    def model(version: int, uri: str = "") -> dict[str, Any]:
        return {"uri": uri or f"store:jobs/j/ppo/policy/{version}-1", "digest": "0", "policy_version": version}

    def seal(self) -> None:
        step = max(self.view.sealed, default=0) + 1
        self.add("batch_sealed", {"stage": "ppo", "step": step, "key": f"b{step}", "sha256": "0"})

    def step(self, score: float | None = 0.0) -> int:
        """Seals, where it is not sealed yet, and completes the next step."""
        step = self.view.completed.get("ppo", 0) + 1
        if step not in self.view.sealed:
            self.seal()
        data = {"stage": "ppo", "step": step, "metrics": {"score": score}, "policy": self.model(step)}
        self.add("step_completed", data)
        return step

    def checkpoint(self, stage: str = "ppo", step: int | None = None) -> None:
        step = step or self.view.completed["ppo"]
        key = f"jobs/j/{stage}/checkpoints/{step}-1/manifest.json"
        self.add("checkpoint", {"stage": stage, "step": step, "key": key, "sha256": "0"})

    def pin(self, step: int, *, pinned: bool = True) -> None:
        (key,) = (ref.key for ref in self.view.checkpoints if ref.step == step and ref.stage == "ppo")
        self.add("checkpoint_pinned", {"stage": "ppo", "step": step, "key": key, "pinned": pinned})

    def evaluate(self, step: int, score: float = 0.0) -> None:
        self.add("evaluated", {"step": step, "key": f"e{step}", "sha256": "0", "metrics": {"eval/score_mean": score}})

    def finish(self) -> None:
        self.add("job_finished", {"state": "FAILED", "error": None})

    def settle(self) -> list[str]:
        """Releases all that can go; the types of the events."""
        kinds = []
        while (release := next_release(self.view, self.spec)) is not None:
            kinds.append(release.TYPE)
            self.add(release.TYPE, release.to_json())
        return kinds

    @property
    def steps(self) -> list[int]:
        return [ref.step for ref in self.view.checkpoints if ref.stage == "ppo"]


def run_to(story: Story, steps: int, scores: dict[int, float] | None = None) -> Story:
    for step in range(1, steps + 1):
        story.step((scores or {}).get(step, 0.0))
        if step % 2 == 0:
            story.checkpoint()
            story.settle()
    return story


def test_the_newest_ones_stay_and_one_event_gives_up_the_versions_between() -> None:
    story = run_to(Story(spec(keep_last=2)), 6)
    story.step()
    story.step()
    story.checkpoint()

    assert story.settle() == ["checkpoint_released", "policies_released"]
    assert story.steps == [6, 8]
    assert sorted(story.view.policies) == [0, 6, 8]
    assert set(story.view.released_policies) == {1, 2, 3, 4, 5, 7}


def test_every_nth_step_stays() -> None:
    assert run_to(Story(spec(keep_last=1, keep_every=4)), 14).steps == [4, 8, 12, 14]


def test_the_best_stays_with_its_policy_until_a_better_one_comes() -> None:
    story = run_to(Story(spec(keep_last=1, keep_best="score")), 10, {4: 2.0, 6: 1.0})
    assert story.steps == [4, 10]
    assert 4 in story.view.policies

    story.step()
    story.step(3.0)
    story.checkpoint()
    story.settle()
    assert story.steps == [12]


def test_a_minus_means_the_lowest() -> None:
    assert run_to(Story(spec(keep_last=1, keep_best="-score")), 10, {4: 2.0, 6: -1.0}).steps == [6, 10]


def test_an_evaluation_that_comes_after_its_checkpoint_counts() -> None:
    story = Story(spec(keep_last=1, keep_best="eval/score_mean"))
    for step in range(1, 7):
        story.step()
        if step % 2 == 0:
            story.checkpoint()
            story.settle()
            story.evaluate(step, {2: 1.0, 4: 5.0, 6: 2.0}[step])
    assert story.steps == [4, 6]


def test_a_metric_that_nobody_measures_keeps_nothing() -> None:
    assert run_to(Story(spec(keep_last=1, keep_best="no/such")), 8).steps == [8]


def test_a_pin_holds_and_its_end_lets_go() -> None:
    story = run_to(Story(spec(keep_last=1)), 2)
    story.pin(2)
    for _ in range(2):
        story.step()
        story.step()
        story.checkpoint()
        story.settle()
    assert story.steps == [2, 6]
    assert sorted(story.view.policies) == [0, 2, 6]

    story.pin(2, pinned=False)
    assert story.settle() == ["checkpoint_released", "policies_released"]
    assert story.steps == [6]


def test_stages_are_counted_apart() -> None:
    story = Story(spec(keep_last=1))
    for step in (2, 4):
        story.checkpoint("sft", step)
        story.checkpoint("reward", step)
    run_to(story, 4)
    assert [(ref.stage, ref.step) for ref in story.view.checkpoints] == [("sft", 4), ("reward", 4), ("ppo", 4)]


@pytest.mark.parametrize("staleness", [0, 1, 3])
def test_unsealed_steps_keep_their_pinned_version(staleness: int) -> None:
    story = run_to(Story(spec(keep_last=1, staleness=staleness)), 8)
    unsealed = max(story.view.sealed) + 1

    assert min(set(story.view.policies) - {0}) == min(8, unsealed - 1 - staleness)


def test_an_evaluation_that_is_owed_keeps_its_version() -> None:
    story = run_to(Story(spec(keep_last=1, eval_prompts={"uri": "x"}, eval_every=3)), 8)
    assert sorted(story.view.policies) == [0, 3, 6, 8]
    story.evaluate(3)
    story.evaluate(6)
    story.settle()
    assert sorted(story.view.policies) == [0, 8]


def test_before_the_first_checkpoint_nothing_goes() -> None:
    story = Story(spec(keep_last=1))
    for _ in range(5):
        story.step()
    assert story.settle() == []


def test_a_finished_job_keeps_its_checkpoints_and_the_newest_policy() -> None:
    story = run_to(Story(spec(keep_last=2, staleness=2, eval_prompts={"uri": "x"}, eval_every=1)), 9)
    story.finish()
    assert story.settle() == ["policies_released"]
    assert story.steps == [6, 8]
    assert sorted(story.view.policies) == [0, 6, 8, 9]


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("step"), st.floats(-3, 3)),
        st.tuples(st.just("seal"), st.none()),
        st.tuples(st.just("checkpoint"), st.none()),
        st.tuples(st.just("evaluate"), st.floats(-3, 3)),
        st.tuples(st.just("pin"), st.integers(0, 9)),
        st.tuples(st.just("unpin"), st.integers(0, 9)),
    ),
    max_size=60,
)
RULES = st.fixed_dictionaries(
    {
        "keep_last": st.integers(1, 4),
        "keep_every": st.none() | st.integers(1, 5),
        "keep_best": st.none() | st.sampled_from(["score", "-score", "eval/score_mean"]),
        "staleness": st.integers(0, 3),
        "eval_prompts": st.none() | st.just({"uri": "x"}),
        "eval_every": st.integers(1, 4),
    }
)


def act(story: Story, action: str, value: Any) -> None:
    view, steps = story.view, story.steps
    ahead = max(view.sealed, default=0) - view.completed.get("ppo", 0)
    if action == "step":
        story.step(value)
    elif action == "seal" and ahead <= story.spec.ppo.staleness:
        story.seal()
    elif action == "checkpoint" and view.completed.get("ppo", 0) > max(steps, default=0):
        story.checkpoint()
    elif action == "evaluate" and view.policy_version not in view.evaluations:
        story.evaluate(view.policy_version, value)
    elif action in ("pin", "unpin") and steps:
        story.pin(steps[value % len(steps)], pinned=action == "pin")


@settings(max_examples=150, deadline=None)
@given(ACTIONS, RULES, st.booleans())
def test_whatever_happens_what_is_needed_stays(actions: list[Any], rule: dict[str, Any], end: bool) -> None:
    story = Story(spec(**rule))
    best: dict[int, float] = {}
    for action, value in actions:
        act(story, action, value)
        before = story.view.checkpoints
        pinned, newest = set(story.view.pinned), story.view.newest_checkpoint("ppo")
        story.settle()
        view = story.view

        assert next_release(view, story.spec) is None
        assert pinned == view.pinned
        assert view.newest_checkpoint("ppo") == newest
        assert view.checkpoints[-rule["keep_last"] :] == before[-rule["keep_last"] :]
        assert {ref.key for ref in view.checkpoints} == kept_checkpoints(view, KeepPolicy.from_spec(story.spec))
        # A learner that is lost now starts at the newest checkpoint, and needs these versions on its way.
        completed, start = view.completed.get("ppo", 0), newest.step if newest else 0
        wanted = set(range(start, completed + 1))
        for step in range(completed + 1, min(100, completed + 2 + rule["staleness"]) + 1):
            if step not in view.sealed:
                wanted.add(max(0, step - 1 - rule["staleness"]))
        assert {version for version in wanted if version <= view.policy_version} <= set(view.policies)
        assert {ref.step for ref in view.checkpoints} <= set(view.policies)
        assert needed_versions(view, story.spec) >= {view.policy_version}
        if rule["keep_best"] == "score":
            scores = {row.step: row.values.get("score") for row in view.metrics.get("ppo", [])}
            best |= {step: score for step, score in scores.items() if score is not None}
            saved = {step: best[step] for step in {ref.step for ref in before}}
            if saved:
                assert max(saved, key=lambda step: (saved[step], -step)) in story.steps
    if end:
        kept = [ref.key for ref in story.view.checkpoints]
        story.finish()
        story.settle()
        assert [ref.key for ref in story.view.checkpoints] == kept
        assert set(story.view.policies) == {0, story.view.policy_version, *story.steps}
