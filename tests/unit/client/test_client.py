import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.client.fake_api import FakeApi, FakeJob
from tests.unit.client.folders import write_spec

from quatrain.backoff import Backoff
from quatrain.client import AsyncClient, Client, ForkedFrom, Update, WaitTimedOut
from quatrain.digests import sha256_hex
from quatrain.errors import AlreadyExists, InvalidData, InvalidInput, InvalidSpec, NotFound, Unavailable
from quatrain.joblog.payloads import CancelRequested, PauseRequested
from quatrain.v1 import job_pb2


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi() as running:
        yield running


@pytest.fixture
def client(api: FakeApi) -> Iterator[Client]:
    with Client(api.target) as open_client:
        yield open_client


def run_steps(job: FakeJob, count: int, *, finish: bool = True) -> FakeJob:
    job.append("state_changed", state="RUNNING", reason="")
    job.append("stage_started", stage="ppo", total_steps=count, total_rows=8)
    for step in range(1, count + 1):
        metrics = {"reward/score_mean": step / 2, "value/explained_variance": None}
        job.append("step_completed", stage="ppo", step=step, metrics=metrics, tokens=None, policy=None)
    if finish:
        job.append("job_finished", state="SUCCEEDED", error=None)
    return job


def test_submit_uploads_what_the_spec_names_and_sends_digests(api: FakeApi, client: Client, tmp_path: Path) -> None:
    job = client.submit(write_spec(tmp_path / "spec"), overrides=["ppo.kl.coef=0.1"])

    sent = api.jobs[job.id].spec
    prompts = sha256_hex((tmp_path / "spec" / "prompts.jsonl").read_bytes())
    code = sha256_hex((tmp_path / "spec" / "rewards.py").read_bytes())
    assert sent.ppo.prompts.uri == f"sha256:{prompts}"
    assert list(sent.ppo.prompts.names) == ["prompts.jsonl"]
    assert sent.model.uri in api.folders
    assert sent.ppo.kl.coef == 0.1
    [function] = sent.reward.functions
    assert (function.path, function.code_digest) == ("rewards.py:shortness", code)
    assert api.files[code].startswith(b"def shortness")
    assert job.spec is not None
    assert job.spec["name"] == "small-job"


def test_validate_only_makes_no_job(api: FakeApi, client: Client, tmp_path: Path) -> None:
    job = client.submit(write_spec(tmp_path), validate_only=True)

    assert api.jobs == {}
    assert job.id == ""
    assert job.warnings == ("3 rows were dropped",)
    assert job.resolved_spec is not None
    assert job.resolved_spec["ppo"]["kl"]["coef"] == 0.05


def test_the_same_request_twice_is_one_job(api: FakeApi, client: Client, tmp_path: Path) -> None:
    spec = write_spec(tmp_path)

    assert client.submit(spec, request_id="r").id == client.submit(spec, request_id="r").id
    assert client.submit(spec).id != client.submit(spec).id
    with pytest.raises(AlreadyExists, match="taken") as caught:
        client.submit(spec, job_id="small-job-1")
    assert caught.value.__notes__[0].startswith("request id: ")


def test_a_wrong_spec_is_refused_before_anything_is_sent(api: FakeApi, client: Client, tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="kl") as caught:
        client.submit(write_spec(tmp_path), overrides=["ppo.kl.coef=-1"])

    assert [each.field for each in caught.value.violations] == ["ppo.kl.coef"]
    assert api.seen == []


def test_every_missing_file_is_named_with_its_field(api: FakeApi, client: Client, tmp_path: Path) -> None:
    spec = write_spec(tmp_path)
    (tmp_path / "prompts.jsonl").unlink()
    (tmp_path / "rewards.py").unlink()
    (tmp_path / "base-model" / "model.safetensors").unlink()

    with pytest.raises(InvalidData) as caught:
        client.submit(spec)

    fields = [each.field for each in caught.value.violations]
    assert sorted(fields) == ["model.uri", "ppo.prompts", "reward.functions.0.path"]
    assert api.seen == []


def test_names_that_the_server_resolves_are_sent_as_they_are(api: FakeApi, client: Client) -> None:
    api.files["d"] = b""
    document = {
        "name": "x",
        "model": {"uri": "models://base@3"},
        "reward": {"functions": [{"path": "package.module:function"}]},
        "ppo": {"prompts": "sha256:d", "steps": 1},
    }

    job = client.submit(document)

    sent = api.jobs[job.id].spec
    assert sent.model.uri == "models://base@3"
    assert sent.reward.functions[0].path == "package.module:function"


def test_jobs_are_listed_over_all_pages(api: FakeApi, client: Client) -> None:
    for name in "abcde":
        run_steps(api.add_job(name), 1, finish=name != "c")

    assert [job.id for job in client.list()] == ["e", "d", "c", "b", "a"]
    assert [job.id for job in client.list(limit=3)] == ["e", "d", "c"]
    assert [job.id for job in client.list(states=["RUNNING"])] == ["c"]
    with pytest.raises(InvalidInput, match="SUCCEEDED"):
        client.list(states=["DONE"])


def test_metrics_are_flat_rows_with_nulls(api: FakeApi, client: Client) -> None:
    run_steps(api.add_job(), 2)

    assert client.metrics("j")[0] == {
        "stage": "ppo",
        "step": 1,
        "attempt": 1,
        "reward/score_mean": 0.5,
        "value/explained_variance": None,
    }
    assert client.metrics("j", names=["reward/score_mean"])[1]["reward/score_mean"] == 1.0
    assert client.metrics("j", stage="sft") == []


def test_events_are_read_over_all_pages(api: FakeApi, client: Client) -> None:
    run_steps(api.add_job(), 8)

    assert [event.revision for event in client.events("j")] == list(range(1, 12))
    assert [event.type for event in client.events("j", after_revision=10)] == ["job_finished"]


def test_rollouts_and_checkpoints(api: FakeApi, client: Client) -> None:
    job = api.add_job()
    job.append("checkpoint", stage="ppo", step=1, key="k", sha256="s", size=3)
    api.rollouts = [
        job_pb2.Rollout(id="a", step=1, score=2.0, finish_reason="FINISH_REASON_STOP"),
        job_pb2.Rollout(id="b", step=1, score=-1.0),
    ]

    assert [each.id for each in client.rollouts("j", step=1, order_by="score", limit=1)] == ["b"]
    [first, second] = client.rollouts("j")
    assert (first.finish_reason, first.gold, second.finish_reason) == ("stop", None, "")
    [checkpoint] = client.checkpoints("j")
    assert (checkpoint.stage, checkpoint.step, checkpoint.key, checkpoint.policy) == ("ppo", 1, "k", None)


def test_watch_gives_a_snapshot_and_then_every_change(api: FakeApi, client: Client) -> None:
    job = run_steps(api.add_job(), 2, finish=False)
    updates = client.watch("j")

    first = next(updates)
    job.append("job_finished", state="SUCCEEDED", error=None)
    rest = list(updates)

    assert (first.event, first.job.step, first.revision) == (None, 2, 4)
    assert [(each.revision, each.job.state) for each in rest] == [(5, "SUCCEEDED")]


def test_watch_of_a_finished_job_ends_at_once(api: FakeApi, client: Client) -> None:
    run_steps(api.add_job(), 2)

    assert [update.job.state for update in client.watch("j")] == ["SUCCEEDED"]
    assert list(client.watch("j", after_revision=5)) == []


def test_watch_reconnects_after_the_revision_it_has_seen(api: FakeApi, client: Client) -> None:
    job = run_steps(api.add_job(), 0, finish=False)
    api.faults.watch_after = [1, 2, 0]
    updates = client.watch("j")
    seen: list[Update] = [next(updates)]

    run_steps(job, 3)
    seen += updates

    assert [update.revision for update in seen] == list(range(2, 9))
    asked = [message.after_revision for kind, message in api.seen if kind == "WatchJobRequest"]
    assert asked == [0, 3, 5, 5]


def test_watch_survives_a_restart_of_the_server(api: FakeApi, client: Client) -> None:
    job = run_steps(api.add_job(), 1, finish=False)
    updates = client.watch("j")
    next(updates)

    api.stop()
    job.append("job_finished", state="FAILED", error={"reason": "RUN_FAILED", "message": "no"})
    api.restart()
    [last] = list(updates)

    assert last.job.error is not None
    assert (last.job.state, last.job.error.reason) == ("FAILED", "RUN_FAILED")


def test_watch_goes_on_for_a_reader_who_took_longer_than_its_patience(api: FakeApi, client: Client) -> None:
    job = run_steps(api.add_job(), 1, finish=False)
    api.faults.silent = True
    updates = client.watch("j", patience=3.0)
    next(updates)
    job.append("pause_requested")
    next(updates)

    api.stop()
    time.sleep(3.2)
    job.append("job_finished", state="SUCCEEDED", error=None)
    waiting = threading.Timer(0.5, api.restart)
    waiting.start()

    assert [update.job.state for update in updates] == ["SUCCEEDED"]
    waiting.join()


def test_watch_has_the_terminal_event_though_the_job_finished_between_two_streams(api: FakeApi, client: Client) -> None:
    job = run_steps(api.add_job(), 1, finish=False)
    updates = client.watch("j")
    next(updates)

    api.faults.before_get = lambda: job.view().finished or job.append("job_finished", state="SUCCEEDED", error=None)
    api.faults.cut_watches = 1

    assert [update.event.type for update in updates if update.event is not None] == ["job_finished"]


def test_watch_gives_up_when_the_server_stays_away(api: FakeApi, client: Client) -> None:
    run_steps(api.add_job(), 1, finish=False)
    updates = client.watch("j", patience=0.3)
    next(updates)
    api.stop()

    with pytest.raises(Unavailable, match=api.target):
        list(updates)


def test_a_server_that_was_never_there_is_named_at_once(api: FakeApi) -> None:
    api.stop()
    started = time.monotonic()

    with Client(api.target) as client:
        with pytest.raises(Unavailable, match=f"the Quatrain API at {api.target}"):
            client.get("j")
        with pytest.raises(Unavailable):
            next(client.watch("j"))

    assert time.monotonic() - started < 10


def test_wait_returns_the_finished_job(api: FakeApi, client: Client) -> None:
    job = run_steps(api.add_job(), 1, finish=False)
    threading.Timer(0.2, lambda: job.append("job_finished", state="CANCELLED", error=None)).start()

    assert client.wait("j", timeout=10).state == "CANCELLED"


def test_wait_outlives_a_restart_of_the_server_after_the_last_event(
    api: FakeApi, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quatrain.client.following.BACKOFF", Backoff(first=0.02, longest=0.02))
    run_steps(api.add_job(), 1, finish=True)
    away = [Unavailable("restarting")] * 8  # more than one call's own retries

    def answer() -> None:
        if away:
            raise away.pop()

    api.faults.before_get = answer
    assert client.wait("j", timeout=60).state == "SUCCEEDED"
    assert away == []


def test_wait_times_out_and_leaves_the_job_alone(api: FakeApi, client: Client) -> None:
    run_steps(api.add_job(), 1, finish=False)

    with pytest.raises(WaitTimedOut, match="goes on"):
        client.wait("j", timeout=0.1)

    assert not any(kind == "CancelJobRequest" for kind, _ in api.seen)


def test_cancel_says_how_and_why(api: FakeApi, client: Client) -> None:
    api.add_job()

    client.cancel("j", now=True, reason="a typo")

    assert api.jobs["j"].view().intents.cancel == CancelRequested(now=True, reason="a typo")


def test_pause_and_resume_say_why(api: FakeApi, client: Client) -> None:
    api.add_job()

    assert client.pause("j", reason="lunch").state == "PAUSED"
    assert api.jobs["j"].view().intents.pause == PauseRequested(reason="lunch")
    assert client.resume("j", reason="back").state == "QUEUED"
    assert api.jobs["j"].events[-1].data == {"reason": "back"}


def test_fork_sends_step_and_changed_fields_and_a_request_id_of_its_own(api: FakeApi, client: Client) -> None:
    api.add_job()

    made = client.fork("j", step=40, overrides=["ppo.kl.coef=0.1", "name = x=y"], job_id="k")
    client.fork("j", job_id="l")

    (first, second) = [request for kind, request in api.seen if kind == "ForkJobRequest"]
    assert (made.id, made.forked_from) == ("k", ForkedFrom("j", 40))
    assert (first.step, dict(first.overrides)) == (40, {"ppo.kl.coef": "0.1", "name": " x=y"})
    assert not second.HasField("step")
    assert first.request_id != second.request_id != ""
    with pytest.raises(InvalidSpec, match="not of the form"):
        client.fork("j", overrides=["ppo"])


def test_what_is_not_there_is_not_found(client: Client) -> None:
    for call in (client.get, client.events, client.metrics, client.checkpoints, client.cancel, client.pause):
        with pytest.raises(NotFound, match="no job 'nope'"):
            call("nope")
    with pytest.raises(NotFound):
        next(client.watch("nope"))


def test_calls_carry_a_request_id_and_the_token(api: FakeApi) -> None:
    with Client(api.target, token="secret") as client:
        client.list()

    assert len(api.metadata["x-request-id"]) == 32
    assert api.metadata["authorization"] == "Bearer secret"


def test_the_client_finds_the_local_stack(api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUATRAIN_ENDPOINT", raising=False)
    monkeypatch.setenv("QUATRAIN_HOME", str(tmp_path))
    with pytest.raises(Unavailable, match="quatrain up"):
        Client()
    (tmp_path / "endpoint.json").write_text(f'{{"api": "{api.target}"}}')

    with Client() as client:
        assert client.list() == []


def test_many_calls_go_over_one_async_client(api: FakeApi) -> None:
    run_steps(api.add_job(), 3)

    async def go() -> list[str]:
        async with AsyncClient(api.target) as client:
            jobs = await asyncio.gather(*(client.get("j") for _ in range(20)))
            return [job.state for job in jobs]

    assert asyncio.run(go()) == ["SUCCEEDED"] * 20


def test_a_closed_client_says_so(api: FakeApi) -> None:
    client = Client(api.target)
    client.close()
    client.close()

    with pytest.raises(ValueError, match="closed"):
        client.list()


def test_the_client_imports_no_torch() -> None:
    code = "import quatrain.client, sys; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
