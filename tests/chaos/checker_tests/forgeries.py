"""One forgery for each thing that the checker looks at: what was done to a good history, and what must find it."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from safetensors.numpy import save
from tests.chaos.checker.objects import sha256
from tests.chaos.checker.tables import canonical
from tests.chaos.checker_tests.histories import Copy

Forge = Callable[[Copy], Any]


@dataclass(frozen=True)
class Forgery:
    """`found_by` is the part that must find it; `also` are invariants that are broken with it by necessity."""

    story: str
    found_by: str
    forge: Forge
    also: frozenset[str] = field(default_factory=frozenset)
    unbroken: str = ""


FORGERIES: dict[str, Forgery] = {}


def forgery(story: str, found_by: str, *, also: tuple[str, ...] = (), unbroken: str = "") -> Callable[[Forge], Forge]:
    """Enters a function into the table."""

    def enter(forge: Forge) -> Forge:
        FORGERIES[forge.__name__] = Forgery(story, found_by, forge, frozenset(also), unbroken)
        return forge

    return enter


@forgery("plain", "I1 one batch a rollout", also=("I2",))
def a_rollout_of_step_1_stands_in_step_3_too(copy: Copy) -> None:
    seals = copy.events("batch_sealed")
    stolen: list[str] = []
    copy.change_rows(seals[0], lambda rows: stolen.append(rows[2]["rollout_id"]))
    copy.change_rows(seals[2], lambda rows: rows[1].update(rollout_id=stolen[0]))


@forgery("plain", "I1 one batch a rollout", also=("I2",))
def a_rollout_stands_twice_in_a_batch(copy: Copy) -> None:
    copy.change_rows(copy.events("batch_sealed")[1], lambda rows: rows[1].update(rollout_id=rows[0]["rollout_id"]))


@forgery("plain", "I1 trained rollouts", also=("I6",))
def a_step_trained_on_a_rollout_that_was_not_sealed(copy: Copy) -> None:
    first, second = copy.events("step_completed")[:2]
    copy.change(second, tokens=second.data["tokens"] | {"sha256": first.data["tokens"]["sha256"]})
    copy.path(second.data["tokens"]["key"]).write_bytes(copy.path(first.data["tokens"]["key"]).read_bytes())


@forgery("plain", "I1 one seal a step", also=("I1",))
def a_step_is_sealed_twice(copy: Copy) -> None:
    seal = copy.events("batch_sealed")[1]
    copy.insert(seal.revision, seal)


@forgery("plain", "I2 expected rows", also=("I1",))
def a_row_is_missing_and_the_sum_is_kept_silent(copy: Copy) -> None:
    seal = copy.events("batch_sealed")[1]
    copy.change_rows(seal, lambda rows: rows.pop())
    copy.change(seal, rollouts=seal.data["rollouts"] - 1)


@forgery("plain", "I2 expected rows")
def a_seed_is_another_one(copy: Copy) -> None:
    copy.change_rows(copy.events("batch_sealed")[1], lambda rows: rows[1].update(seed=7))


@forgery("plain", "I2 expected rows", also=("I1",))
def rows_are_out_of_order(copy: Copy) -> None:
    copy.change_rows(copy.events("batch_sealed")[1], lambda rows: rows.reverse())


@forgery("plain", "I2 expected rows", also=("I2",))
def an_evaluation_lacks_a_prompt(copy: Copy) -> None:
    copy.change_rows(copy.events("evaluated")[1], lambda rows: rows.pop())


@forgery("plain", "I2 prompts in turn", also=("I1",))
def a_prompt_is_taken_out_of_turn(copy: Copy) -> None:
    first, second = copy.events("batch_sealed")[:2]
    taken: list[dict[str, Any]] = []
    copy.change_rows(first, lambda rows: taken.extend(rows))

    def repeat(rows: list[dict[str, Any]]) -> None:
        rows[0].update(prompt_index=taken[0]["prompt_index"], prompt_ids=taken[0]["prompt_ids"])
        place = [rows[0]["prompt_index"], 0]
        rows[0]["rollout_id"] = sha256(canonical([copy.job, "rollout", 2, *place]))[:24]
        seed = json.loads(copy.path(f"jobs/{copy.job}/spec.json").read_bytes())["spec"]["seed"]
        rows[0]["seed"] = int(sha256(canonical([seed, "ppo", 2, *place]))[:16], 16)
        rows.sort(key=lambda row: row["prompt_index"])

    copy.change_rows(second, repeat)


@forgery("plain", "I2 sound rows", also=("I1",))
def a_refusal_has_no_reason(copy: Copy) -> None:
    copy.change_rows(
        copy.events("batch_sealed")[1], lambda rows: rows[0].update(status="refused", reason="", score=None)
    )


@forgery("plain", "I2 sound rows")
def a_rollout_lacks_logprobs(copy: Copy) -> None:
    copy.change_rows(copy.events("batch_sealed")[1], lambda rows: rows[0].update(ref_logprobs=[]))


@forgery("plain", "I2 sound rows")
def a_rollout_has_no_score(copy: Copy) -> None:
    copy.change_rows(copy.events("batch_sealed")[1], lambda rows: rows[0].update(score=None))


@forgery("plain", "I2 sums")
def the_sums_are_wrong(copy: Copy) -> None:
    seal = copy.events("batch_sealed")[0]
    copy.change(seal, rollouts=seal.data["rollouts"] - 1, skipped=1)


@forgery("plain", "I2 prompt tokens")
def a_row_has_the_tokens_of_another_prompt(copy: Copy) -> None:
    copy.change_rows(copy.events("batch_sealed")[0], lambda rows: rows[0].update(prompt_ids=[0, 0, 0]))


@forgery("plain", "I3 listed", also=("I1", "I2", "I4", "I6", "I7", "I10", "I12"))
def the_spec_is_gone(copy: Copy) -> None:
    copy.path(f"jobs/{copy.job}/spec.json").unlink()


@forgery("broken", "I3 ends or runs", also=("I3",))
def the_terminal_event_never_came(copy: Copy) -> None:
    copy.event_path(copy.events("job_finished")[0].revision).unlink()


@forgery("plain", "I3 ends or runs")
def a_finished_job_goes_on(copy: Copy) -> None:
    end = copy.events("job_finished")[0]
    copy.insert(end.revision, copy.events("state_changed")[0], epoch_=end.epoch, attempt_=end.attempt)


@forgery("plain", "I4 versions rise by one")
def a_version_is_left_out(copy: Copy) -> None:
    last = copy.events("step_completed")[-1]
    copy.change(last, policy=last.data["policy"] | {"policy_version": last.data["step"] + 1})


@forgery("broken", "I4 steps in order", also=("I4", "I7", "I6"))
def a_step_is_trained_without_a_sealed_batch(copy: Copy) -> None:
    seal = copy.events("batch_sealed")[2]
    copy.change(seal, type_="condition", name="nothing", message=None)


@forgery("staged", "I4 pinned versions", also=("I4",))
def a_batch_is_of_the_latest_version_and_not_of_the_pinned_one(copy: Copy) -> None:
    seal = copy.events("batch_sealed")[2]
    copy.change(seal, policy_version=seal.data["policy_version"] + 1)


@forgery("staged", "I4 samples' versions")
def a_sample_is_of_another_version(copy: Copy) -> None:
    copy.change_rows(copy.events("batch_sealed")[2], lambda rows: rows[3].update(policy_version=2))


@forgery("plain", "I4 samples' versions")
def a_sample_was_made_by_other_weights(copy: Copy) -> None:
    copy.change_rows(copy.events("batch_sealed")[2], lambda rows: rows[3].update(policy_digest="0" * 64))


@forgery("broken", "I5 epochs and attempts")
def a_zombie_of_a_lower_epoch_writes_on(copy: Copy) -> None:
    first, second = copy.events("owner_taken")
    step = copy.events("condition", "state_changed")[0]
    copy.insert(second.revision, step, epoch_=first.epoch, attempt_=second.attempt, actor_=first.actor)


@forgery("broken", "I5 epochs and attempts")
def an_owner_skips_an_epoch(copy: Copy) -> None:
    second = copy.events("owner_taken")[1]
    for event in copy.events(*{event.type for event in copy.events(*ALL)}):
        if event.revision >= second.revision and event.epoch:
            copy.change(event, epoch_=event.epoch + 1)


@forgery("broken", "I5 epochs and attempts", also=("I5",))
def a_step_counts_for_the_attempt_before(copy: Copy) -> None:
    last = copy.events("state_changed")[-1]
    copy.change(last, attempt_=last.attempt - 1)


@forgery("broken", "I5 epochs and attempts")
def two_writers_share_an_epoch(copy: Copy) -> None:
    copy.change(copy.events("step_completed")[-1], actor_="somebody-else")


@forgery("broken", "I5 names")
def an_event_names_what_a_lost_attempt_wrote(copy: Copy) -> None:
    last = copy.events("step_completed")[-1]
    tokens = last.data["tokens"]
    key = tokens["key"].replace(f"-{last.attempt}.", "-1.")
    copy.path(tokens["key"]).rename(copy.path(key))
    copy.change(last, tokens=tokens | {"key": key})


@forgery("staged", "I5 once")
def an_sft_step_counts_twice(copy: Copy) -> None:
    step = copy.events("step_completed")[0]
    copy.insert(step.revision, step)


@forgery("plain", "I5 once")
def one_write_landed_twice(copy: Copy) -> None:
    sealed, state = copy.events("batch_sealed")[0], copy.events("state_changed")[0]
    copy.change(sealed, nonce_=state.nonce)


@forgery("broken", "I5 from the checkpoint")
def an_attempt_begins_before_the_checkpoint(copy: Copy) -> None:
    last = copy.events("learner_opened")[-1]
    copy.change(last, from_step=last.data["from_step"] - 1)


@forgery("staged", "I6 log", also=("I5",))
def an_event_is_lost(copy: Copy) -> None:
    copy.event_path(copy.events("state_changed")[1].revision).unlink()


@forgery("broken", "I6 log")
def an_event_is_cut_off(copy: Copy) -> None:
    path = copy.event_path(copy.events("condition", "state_changed")[0].revision)
    path.write_bytes(path.read_bytes()[:-5])


@forgery("plain", "I6 named objects")
def a_file_of_a_checkpoint_is_missing(copy: Copy) -> None:
    copy.path(copy.events("checkpoint")[-1].data["key"]).parent.joinpath("state.json").unlink()


@forgery("plain", "I6 named objects", also=("I7",))
def a_bit_of_a_batch_flips(copy: Copy) -> None:
    flip(copy, copy.events("batch_sealed")[1].data["key"])


@forgery("plain", "I6 named objects")
def a_bit_of_a_policy_flips(copy: Copy) -> None:
    uri = copy.events("step_completed")[1].data["policy"]["uri"].removeprefix("store:")
    flip(copy, f"{uri}/model.safetensors")


@forgery("plain", "I6 named objects")
def the_prompts_are_missing(copy: Copy) -> None:
    copy.path(copy.pinned()["prompts"]["key"]).unlink()


@forgery("plain", "I6 named objects")
def the_base_model_is_missing(copy: Copy) -> None:
    copy.path(f"models/{copy.pinned()['model']['digest']}/config.json").unlink()


@forgery("plain", "I6 named objects")
def the_token_table_is_missing(copy: Copy) -> None:
    copy.path(copy.events("step_completed")[0].data["tokens"]["key"]).unlink()


@forgery("plain", "I6 retention")
def a_policy_is_released_that_a_batch_needs(copy: Copy) -> None:
    seal = copy.events("batch_sealed")[2]
    copy.insert(seal.revision - 1, seal, type_="policies_released", versions=[seal.data["policy_version"]])


@forgery("plain", "I6 retention")
def the_last_checkpoint_is_released_while_the_job_runs(copy: Copy) -> None:
    checkpoint = copy.events("checkpoint")[0]
    copy.insert(checkpoint.revision, checkpoint, type_="checkpoint_released", reason="retention")


@forgery("plain", "I6 retention")
def a_pinned_checkpoint_is_released(copy: Copy) -> None:
    checkpoint = copy.events("checkpoint")[0]
    end = copy.events("job_finished")[0].revision
    copy.insert(end, checkpoint, type_="checkpoint_pinned", pinned=True, epoch_=0)
    copy.insert(end + 1, checkpoint, type_="checkpoint_released", reason="retention", epoch_=0)


@forgery("plain", "I6 retention")
def retention_gives_up_what_its_rule_keeps(copy: Copy) -> None:
    checkpoint = copy.events("checkpoint")[1]
    end = copy.events("job_finished")[0].revision
    copy.insert(end, checkpoint, type_="checkpoint_released", reason="retention", epoch_=0)


@forgery("plain", "I6 weights", also=("I7",))
def a_stage_names_other_weights(copy: Copy) -> None:
    copy.change(copy.events("stage_completed")[0], weights_sha256="0" * 64)


@forgery("plain", "I6 snapshots")
def a_snapshot_tells_another_story(copy: Copy) -> None:
    documents = [json.loads(copy.event_path(revision).read_bytes()) for revision in (1, 2, 3)]
    documents[2]["data"] = {"state": "PAUSED", "reason": ""}
    document = {"sha256": sha256(canonical(documents)), "events": documents}
    path = copy.path(f"jobs/{copy.job}/snapshots/{3:010d}")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(canonical(document))


@forgery("broken", "I7 same outcome", unbroken="plain")
def the_resumed_run_ends_with_other_losses(copy: Copy) -> None:
    last = copy.events("step_completed")[-1]
    copy.change(last, metrics=last.data["metrics"] | {"policy/loss": 0.5})


@forgery("broken", "I7 same outcome", unbroken="plain")
def the_resumed_run_saw_another_batch(copy: Copy) -> None:
    copy.change_rows(copy.events("batch_sealed")[-1], lambda rows: rows[0].update(score=0.125))


@forgery("broken", "I7 same outcome", unbroken="plain")
def the_resumed_run_failed(copy: Copy) -> None:
    copy.change(copy.events("job_finished")[0], state="FAILED", error={"reason": "X", "message": "x"})


@forgery("broken", "I7 same outcome", also=("I6",), unbroken="plain")
def the_resumed_run_has_other_weights(copy: Copy) -> None:
    copy.change(copy.events("stage_completed")[0], weights_sha256="0" * 64)


@forgery("broken", "I10 retries")
def an_attempt_too_many_after_failures(copy: Copy) -> None:
    path = copy.path(f"jobs/{copy.job}/spec.json")
    document = json.loads(path.read_bytes())
    document["spec"]["limits"]["retries"] = 0
    path.write_bytes(canonical(document))


@forgery("plain", "I10 takeovers")
def owners_come_and_go_without_end(copy: Copy) -> None:
    taken = copy.events("owner_taken")[0]
    for number in range(1, 23):
        copy.insert(taken.revision + number - 1, taken, epoch_=taken.epoch + number)
    raised = taken.epoch + 22
    for event in copy.events(*ALL):
        if event.type != "owner_taken" and event.epoch:
            copy.change(event, epoch_=raised)
    for event in copy.events("batch_sealed", "evaluated"):  # Their names carry the epoch.
        key = event.data["key"].replace(f"/{event.data['step']}-1-", f"/{event.data['step']}-{raised}-")
        copy.path(event.data["key"]).rename(copy.path(key))
        copy.change(event, key=key)


@forgery("broken", "I10 back-off")
def the_next_attempt_does_not_wait(copy: Copy) -> None:
    failed = copy.events("attempt_failed")[0]
    opened = next(event for event in copy.events("learner_opened") if event.revision > failed.revision)
    copy.change(opened, time_=json.loads(copy.event_path(failed.revision).read_bytes())["time"])


@forgery("plain", "I10 attempts", also=("I5",))
def attempts_rain_down(copy: Copy) -> None:
    opened = copy.events("learner_opened")[0]
    for _ in range(14):
        copy.insert(opened.revision, opened)


@forgery("cancelled", "I11 steps", also=("I4", "I5", "I6"))
def steps_go_on_after_the_wish(copy: Copy) -> None:
    step, wish = copy.events("step_completed")[-1], copy.events("cancel_requested")[0]
    for _ in range(3):
        copy.insert(max(wish.revision, step.revision), step)


@forgery("cancelled", "I11 time in the log")
def the_end_comes_minutes_after_the_wish(copy: Copy) -> None:
    copy.change(copy.events("job_finished")[0], time_="2099-01-01T00:00:00.000Z")


@forgery("plain", "I12 state")
def a_moment_of_the_optimizer_is_nan(copy: Copy) -> None:
    moments = np.array([1.0, np.nan], dtype=np.float32)
    copy.add_file(copy.events("checkpoint")[0], "policy_optimizer.safetensors", save({"weight:exp_avg": moments}))


@forgery("plain", "I12 state")
def a_bfloat16_weight_is_infinite(copy: Copy) -> None:
    header = canonical({"weight": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}})
    data = len(header).to_bytes(8, "little") + header + b"\x80\x3f\x80\x7f"  # 1.0 and infinity
    copy.add_file(copy.events("checkpoint")[0], "policy.safetensors", data)


@forgery("plain", "I12 state")
def the_kl_coefficient_is_infinite(copy: Copy) -> None:
    copy.add_file(copy.events("checkpoint")[0], "more.json", b'{"kl_coef": Infinity}')


@forgery("plain", "I12 rows", also=("I7",))
def a_logprob_of_a_batch_is_nan(copy: Copy) -> None:
    copy.change_rows(copy.events("batch_sealed")[0], lambda rows: rows[0]["logprobs"].__setitem__(0, float("nan")))


@forgery("plain", "I12 events", also=("I7",))
def a_metric_is_nan(copy: Copy) -> None:
    step = copy.events("step_completed")[0]
    copy.change(step, metrics=step.data["metrics"] | {"policy/loss": float("nan")})


ALL = (
    "owner_taken",
    "state_changed",
    "stage_started",
    "learner_opened",
    "batch_sealed",
    "step_completed",
    "policy_published",
    "checkpoint",
    "evaluated",
    "stage_completed",
    "condition",
    "attempt_failed",
    "job_finished",
)


def flip(copy: Copy, key: str) -> None:
    """Flips one bit in the middle of an object."""
    data = bytearray(copy.path(key).read_bytes())
    data[len(data) // 2] ^= 0x10
    copy.path(key).write_bytes(bytes(data))
