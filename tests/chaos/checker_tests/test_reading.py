"""What the checker reads from: real servers, stores from which retention has deleted, jobs that still run."""

from pathlib import Path

import pytest
from redis import Redis
from tests.chaos.checker import FolderObjects, Missing, Observed, S3Objects, examine, redis_left
from tests.chaos.checker_tests.histories import Copy, Stories
from tests.servers.redis import RedisServer
from tests.servers.s3 import ACCESS_KEY, SECRET_KEY, S3Server

from quatrain.storage.s3 import S3Store


def test_a_bucket_is_judged_as_a_folder_is(stories: Stories, minio_server: S3Server) -> None:
    story = stories["staged"]
    bucket = "checker"
    store = S3Store(minio_server.address(bucket))
    store.ensure_bucket(create=True)
    folder = FolderObjects(story.store)
    for key in folder.list(""):
        store.put(key, folder.get(key))
    objects = S3Objects(minio_server.endpoint, bucket, ACCESS_KEY, SECRET_KEY)
    assert objects.list("jobs/staged/events/") == folder.list("jobs/staged/events/")
    with pytest.raises(Missing):
        objects.get("jobs/staged/nothing")
    assert examine(objects, "staged").violations == []
    store.delete(folder.list("jobs/staged/ppo/batches/")[0])
    assert examine(objects, "staged").broken == {"I6"}


def test_what_redis_holds_of_a_job_is_found(valkey_server: RedisServer) -> None:
    client = Redis.from_url(valkey_server.url)
    for job in ("mine", "other"):
        client.set(f"quatrain:job:{job}", "open")
        client.xadd(f"quatrain:rollouts:{job}", {"result": b"x"})
        client.xadd("quatrain:tasks:default", {"job": job, "nonce": "n", "payload": b"x"})
    left = redis_left(client, "mine")
    assert [name.split()[0] for name in left] == [
        "quatrain:job:mine",
        "quatrain:rollouts:mine",
        "quatrain:tasks:default",
    ]
    assert redis_left(client, "nobody") == []
    client.close()


def _release(copy: Copy) -> tuple[Path, Path]:
    """Gives up the first checkpoint and its policy; the folders of both."""
    checkpoint = copy.events("checkpoint")[0]
    policy = copy.events("step_completed")[checkpoint.data["step"] - 1].data["policy"]
    end = copy.events("job_finished")[0].revision
    copy.insert(end, checkpoint, type_="checkpoint_released", reason="somebody", epoch_=0)
    copy.insert(end + 1, checkpoint, type_="policies_released", versions=[policy["policy_version"]], epoch_=0)
    return copy.path(checkpoint.data["key"]).parent, copy.path(policy["uri"].removeprefix("store:"))


def test_what_was_released_need_not_be_there(stories: Stories, tmp_path: Path) -> None:
    copy = stories["plain"].copy(tmp_path)
    for folder in _release(copy):
        for path in folder.iterdir():
            path.unlink()
    verdict = copy.examine(watches=None)
    assert verdict.violations == []
    assert "I6 retention" in verdict.decided
    copy.path(copy.events("checkpoint")[1].data["key"]).unlink()
    assert copy.examine(watches=None).broken == {"I6"}


def test_of_a_deleted_job_spec_and_events_stay(stories: Stories, tmp_path: Path) -> None:
    copy = stories["plain"].copy(tmp_path)
    end = copy.events("job_finished")[0]
    copy.insert(end.revision, end, type_="job_deleted", reason="enough", epoch_=0)
    for path in copy.path("jobs/plain/ppo").rglob("*"):
        if path.is_file():
            path.unlink()
    assert copy.examine(watches=None).violations == []
    copy.event_path(3).unlink()
    assert "I6" in copy.examine(watches=None).broken


def test_a_job_that_runs_has_not_ended_and_is_in_the_index(stories: Stories, tmp_path: Path) -> None:
    copy = stories["broken"].copy(tmp_path)
    copy.event_path(copy.events("job_finished")[0].revision).unlink()
    objects, running = FolderObjects(copy.store), Observed(running=True)
    assert [violation.part for violation in examine(objects, "broken", running).violations] == ["ends or runs"]
    copy.path("active").mkdir(exist_ok=True)
    copy.path("active/broken").write_bytes(b"{}")
    assert examine(objects, "broken", running).violations == []
    assert [violation.part for violation in examine(objects, "broken").violations] == ["ends or runs"]


def test_a_job_that_rests_neither_ends_nor_runs(stories: Stories, tmp_path: Path) -> None:
    copy = stories["plain"].copy(tmp_path)
    end = copy.events("job_finished")[0]
    copy.change(end, type_="state_changed", state="PAUSED", reason="")
    assert "I3" in copy.examine(watches=None, index_left=None).broken
    copy.insert(end.revision - 1, end, type_="pause_requested", epoch_=0, attempt_=0)
    copy.path("active").mkdir(exist_ok=True)
    copy.path("active/plain").write_bytes(b"{}")
    assert copy.examine(watches=None, faults=None).violations == []
