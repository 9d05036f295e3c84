import json
from collections.abc import Callable

import pytest
from tests.unit.client.fake_api import FakeApi, FakeJob

from quatrain.joblog.payloads import CancelRequested, PauseRequested
from quatrain.joblog.view import Intents

Cli = Callable[..., tuple[int, str, str]]


def start(job: FakeJob) -> FakeJob:
    job.append("owner_taken", owner="o", address="")
    job.append("state_changed", state="RUNNING", reason="")
    return job


def test_cancel_is_an_intent(api: FakeApi, cli: Cli) -> None:
    job = start(api.add_job("a"))

    assert cli("job", "cancel", "a", "--reason", "enough")[:2] == (0, "RUNNING\n")
    assert cli("job", "cancel", "a", "--now", "-o", "name")[:2] == (0, "a\n")
    assert job.view().intents.cancel == CancelRequested(now=True)


def test_pause_and_resume_are_intents(api: FakeApi, cli: Cli) -> None:
    job = start(api.add_job("a"))

    code, out, err = cli("job", "pause", "a", "--reason", "lunch")
    assert (code, out) == (0, "RUNNING\n")
    assert "the pause is asked for" in err
    assert job.view().intents == Intents(pause=PauseRequested(reason="lunch"))

    assert cli("job", "resume", "a", "-o", "name")[:2] == (0, "a\n")
    assert job.view().intents == Intents()


def test_fork_takes_a_step_and_changed_fields(api: FakeApi, cli: Cli) -> None:
    start(api.add_job("a"))

    code, out, err = cli("job", "fork", "a@40", "--set", "ppo.kl.coef=0.1", "--job-id", "b", "-o", "name")

    assert (code, out) == (0, "b\n")
    assert "quatrain job watch b" in err
    request = next(request for kind, request in api.seen if kind == "ForkJobRequest")
    assert (request.job_id, request.step, dict(request.overrides)) == ("a", 40, {"ppo.kl.coef": "0.1"})
    document = json.loads(cli("job", "fork", "a", "--job-id", "c", "-o", "json")[1])
    assert (document["id"], document["forked_from"]) == ("c", {"job": "a", "step": 0})


@pytest.mark.parametrize("source", ["a@", "a@x", "a@-1", "a@²"])
def test_a_step_that_is_none_is_a_usage_error(api: FakeApi, cli: Cli, source: str) -> None:
    assert cli("job", "fork", source)[0] == 2
