"""Forgeries of forks, and of what lies beside a job: I4, I5, I6, I7."""

import json
from typing import Any

from tests.chaos.checker.objects import sha256
from tests.chaos.checker.tables import canonical
from tests.chaos.checker_tests.forged_data import flip
from tests.chaos.checker_tests.forgery import Table
from tests.chaos.checker_tests.histories import Copy

FORGERIES = Table()
forgery = FORGERIES.enter


def change_origin(copy: Copy, **fields: Any) -> None:
    """Changes what spec.json and the log say of the origin of a fork."""
    path = copy.path(f"jobs/{copy.job}/spec.json")
    document = json.loads(path.read_bytes())
    document["forked_from"] |= fields
    path.write_bytes(canonical(document))
    copy.change(copy.events("forked")[0], **fields)


@forgery("forked", "I4 versions rise by one", also=("I5", "I6", "I7"))
def a_fork_says_that_it_began_a_step_earlier(copy: Copy) -> None:
    change_origin(copy, step=1)


@forgery("forked", "I4 versions rise by one", also=("I4",))
def the_first_version_of_a_fork_is_the_first_of_all(copy: Copy) -> None:
    first = copy.events("policy_published")[0]
    copy.change(first, step=0, model=first.data["model"] | {"policy_version": 0})


@forgery("forked", "I4 steps in order", also=("I2",))
def a_fork_does_a_step_of_its_source_again(copy: Copy) -> None:
    for kind in ("batch_sealed", "step_completed"):
        copy.change(copy.events(kind)[0], step=2)


@forgery("forked", "I4 pinned versions")
def a_fork_samples_from_a_version_of_its_source(copy: Copy) -> None:
    copy.change(copy.events("batch_sealed")[0], policy_version=1)


@forgery("forked", "I5 from the checkpoint")
def a_fork_begins_with_nothing(copy: Copy) -> None:
    copy.change(copy.events("learner_opened")[0], from_step=0)


@forgery("forked", "I5 fork begins")
def a_fork_does_not_say_where_it_comes_from(copy: Copy) -> None:
    forked = copy.events("forked")[0]
    copy.change(forked, type_="condition", name="nothing", message=None)


@forgery("forked", "I5 fork begins")
def a_fork_tells_another_origin(copy: Copy) -> None:
    copy.change(copy.events("forked")[0], job="another")


@forgery("forked", "I5 fork begins")
def a_fork_says_twice_where_it_comes_from(copy: Copy) -> None:
    forked = copy.events("forked")[0]
    copy.insert(forked.revision, forked)


@forgery("forked", "I6 fork's checkpoint")
def a_fork_lives_on_the_checkpoint_of_its_source(copy: Copy) -> None:
    checkpoint = copy.events("forked")[0].data["checkpoint"]
    there = checkpoint["key"].replace("/forked/", "/origin/").replace("/2-0/", "/2-1/")
    change_origin(copy, checkpoint=checkpoint | {"key": there})


@forgery("forked", "I6 fork's checkpoint")
def a_fork_goes_on_from_another_checkpoint(copy: Copy) -> None:
    objects = copy.path(copy.events("forked")[0].data["checkpoint"]["key"]).parent
    other = copy.path("jobs/origin/ppo/checkpoints")
    saved = next(path for path in other.iterdir() if path.name.startswith("4-"))
    for path in saved.iterdir():
        (objects / path.name).write_bytes(path.read_bytes())
    manifest = (objects / "manifest.json").read_bytes()
    checkpoint = copy.events("forked")[0].data["checkpoint"]
    change_origin(copy, checkpoint=checkpoint | {"sha256": sha256(manifest), "size": len(manifest)})


@forgery("forked", "I6 named objects")
def a_file_of_the_copied_checkpoint_is_missing(copy: Copy) -> None:
    checkpoint = copy.events("forked")[0].data["checkpoint"]
    copy.path(checkpoint["key"]).with_name("state.json").unlink()


@forgery("forked", "I6 others untouched")
def an_object_of_the_source_is_gone(copy: Copy) -> None:
    next(copy.path("jobs/origin/ppo/batches").iterdir()).unlink()


@forgery("forked", "I6 others untouched")
def an_object_of_the_source_was_changed(copy: Copy) -> None:
    flip(copy, next(copy.path("jobs/origin/events").iterdir()).relative_to(copy.store).as_posix())


@forgery("forked", "I7 same outcome", unbroken="forked")
def a_fork_ends_with_other_losses(copy: Copy) -> None:
    last = copy.events("step_completed")[-1]
    copy.change(last, metrics=last.data["metrics"] | {"policy/loss": 0.5})


@forgery("plain", "I6 content")
def a_bit_of_uploaded_data_flips(copy: Copy) -> None:
    path = next(path for path in copy.path("data/sha256").iterdir() if path.name != copy.pinned()["prompts"]["sha256"])
    flip(copy, f"data/sha256/{path.name}")


@forgery("plain", "I6 content", also=("I6",))
def a_model_is_half_there(copy: Copy) -> None:
    copy.path(f"models/{copy.pinned()['model']['digest']}/config.json").unlink()


@forgery("released", "I6 given up is gone")
def a_released_checkpoint_is_still_there(copy: Copy) -> None:
    folder = copy.path(copy.events("checkpoint_released")[0].data["key"]).parent
    folder.mkdir(exist_ok=True)
    (folder / "state.json").write_bytes(b"{}")


@forgery("deleted", "I6 given up is gone")
def something_of_a_deleted_job_is_still_there(copy: Copy) -> None:
    copy.path("jobs/deleted/ppo/batches").mkdir(parents=True, exist_ok=True)
    copy.path("jobs/deleted/ppo/batches/1-1-x.parquet").write_bytes(b"rows")


@forgery("deleted", "I6 log", also=("I6",))
def the_log_of_a_deleted_job_is_gone(copy: Copy) -> None:
    copy.event_path(2).unlink()


@forgery("deleted", "I6 others untouched")
def an_object_of_another_job_went_with_a_deleted_one(copy: Copy) -> None:
    next(copy.path("jobs/other/ppo/batches").iterdir()).unlink()


@forgery("released", "I6 others untouched", also=("I6",))
def another_checkpoint_went_with_the_released_one(copy: Copy) -> None:
    copy.path(copy.events("checkpoint")[-1].data["key"]).unlink()
