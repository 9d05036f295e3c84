"""Forgeries of the log: I3, I4, I5, I7, I10, I11."""

import json

from tests.chaos.checker.tables import canonical
from tests.chaos.checker_tests.forgery import Table
from tests.chaos.checker_tests.histories import Copy

FORGERIES = Table()
forgery = FORGERIES.enter


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
def an_owner_of_a_lower_epoch_writes_on(copy: Copy) -> None:
    first, second = copy.events("owner_taken")
    step = copy.events("condition", "state_changed")[0]
    copy.insert(second.revision, step, epoch_=first.epoch, attempt_=second.attempt, actor_=first.actor)


@forgery("broken", "I5 epochs and attempts")
def an_owner_skips_an_epoch(copy: Copy) -> None:
    second = copy.events("owner_taken")[1]
    for event in copy.events():
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
    for event in copy.events():
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
def steps_go_on_after_the_intent(copy: Copy) -> None:
    step, intent = copy.events("step_completed")[-1], copy.events("cancel_requested")[0]
    for _ in range(3):
        copy.insert(max(intent.revision, step.revision), step)


@forgery("cancelled", "I11 time in the log")
def the_end_comes_minutes_after_the_intent(copy: Copy) -> None:
    copy.change(copy.events("job_finished")[0], time_="2099-01-01T00:00:00.000Z")


@forgery("plain", "I11 pause")
def steps_go_on_before_the_pause(copy: Copy) -> None:
    step, state = copy.events("step_completed")[1], copy.events("state_changed")[0]
    copy.insert(step.revision, state, type_="pause_requested", epoch_=0, attempt_=0)


@forgery("plain", "I11 pause")
def a_paused_job_goes_on(copy: Copy) -> None:
    steps_go_on_before_the_pause(copy)
    step, state = copy.events("step_completed")[1], copy.events("state_changed")[0]
    copy.insert(step.revision + 1, state, state="PAUSED", epoch_=step.epoch, attempt_=step.attempt)
