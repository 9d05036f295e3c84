"""Forgeries of batches, named objects and numbers: I1, I2, I6, I12."""

import json
from typing import Any

import numpy as np
from safetensors.numpy import save
from tests.chaos.checker.objects import sha256
from tests.chaos.checker.tables import canonical
from tests.chaos.checker_tests.forgery import Table
from tests.chaos.checker_tests.histories import Copy

FORGERIES = Table()
forgery = FORGERIES.enter


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
def the_policy_of_a_kept_checkpoint_is_released(copy: Copy) -> None:
    checkpoint = copy.events("checkpoint")[0]
    end = copy.events("job_finished")[0].revision
    copy.insert(end, checkpoint, type_="policies_released", versions=[checkpoint.data["step"]], epoch_=0)


@forgery("plain", "I6 retention")
def retention_gives_up_the_best(copy: Copy) -> None:
    checkpoint = copy.events("checkpoint")[0]
    path = copy.path(f"jobs/{copy.job}/spec.json")
    document = json.loads(path.read_bytes())
    document["spec"]["checkpoint"] |= {"keep_last": 1, "keep_best": "policy/loss"}
    path.write_bytes(canonical(document))
    for event in copy.events("step_completed"):
        copy.change(event, metrics=event.data["metrics"] | {"policy/loss": -float(event.data["step"])})
    end = copy.events("job_finished")[0].revision
    copy.insert(end, checkpoint, type_="checkpoint_released", reason="retention", epoch_=0)


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


def flip(copy: Copy, key: str) -> None:
    """Flips one bit in the middle of an object."""
    data = bytearray(copy.path(key).read_bytes())
    data[len(data) // 2] ^= 0x10
    copy.path(key).write_bytes(bytes(data))
