from collections.abc import Callable

from tests.unit.client.fake_api import FakeApi, FakeJob

Cli = Callable[..., tuple[int, str, str]]


def saved(api: FakeApi) -> FakeJob:
    job = api.add_job("a")
    job.append("checkpoint", stage="ppo", step=20, key="k", sha256="s", size=3)
    return job


def test_a_checkpoint_is_pinned_and_let_go(api: FakeApi, cli: Cli) -> None:
    job = saved(api)

    code, out, err = cli("checkpoint", "pin", "a", "--step", "20", "--reason", "the best")
    assert (code, out) == (0, "")
    assert "step 20 is pinned" in err
    assert job.view().pinned == {"k"}
    assert job.events[-1].data["reason"] == "the best"

    assert "no longer pinned" in cli("checkpoint", "pin", "a", "--step", "20", "--off")[2]
    assert job.view().pinned == set()


def test_a_checkpoint_is_given_up(api: FakeApi, cli: Cli) -> None:
    job = saved(api)

    assert cli("checkpoint", "delete", "a", "--step", "20", "--reason", "too large")[0] == 0

    assert job.view().checkpoints == []
    assert job.view().released["k"].reason == "too large"


def test_a_job_is_deleted(api: FakeApi, cli: Cli) -> None:
    job = saved(api)

    code, _, err = cli("job", "delete", "a", "--reason", "old")

    assert code == 0
    assert "quatrain job events a" in err
    assert job.events[-1].type == "job_deleted"
    assert job.events[-1].data["reason"] == "old"


def test_what_is_not_there_is_exit_code_4(api: FakeApi, cli: Cli) -> None:
    saved(api)

    for arguments in (("checkpoint", "pin", "a"), ("checkpoint", "delete", "a")):
        assert cli(*arguments, "--step", "3")[0] == 4
    assert cli("job", "delete", "nobody")[0] == 4
