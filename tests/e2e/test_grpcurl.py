"""The API by a tool that knows nothing of Quatrain: reflection, a job from JSON, its stream, its idempotence."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.stack import Stack, running_stack
from tests.e2e.tasks import Spec, count_symbol
from tests.servers.binaries import GRPCURL, require_program

DEADLINE = 180.0


@pytest.fixture(scope="session")
def grpcurl() -> Path:
    """The program, built if need be."""
    return require_program(GRPCURL)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("grpcurl")) as stack:
        yield stack


@pytest.fixture(scope="module")
def spec(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Spec:
    """As JSON on the wire: what is local is an absolute file:/// URI, code has a digest."""
    folder = tmp_path_factory.mktemp("spec")
    spec = count_symbol(folder)
    with stack.client() as client:
        code = client.upload(folder / "rewards.py")
    spec["reward"] = {"functions": [{"path": "rewards.py:count_symbol", "code_digest": code.sha256}]}
    spec["ppo"]["prompts"] = {"uri": f"file://{folder / 'prompts.jsonl'}"}
    return spec


@dataclass(frozen=True)
class Api:
    """The API as grpcurl sees it."""

    program: Path
    target: str

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [str(self.program), "-plaintext", *arguments], capture_output=True, text=True, timeout=DEADLINE, check=False
        )

    def call(self, method: str, request: dict[str, Any]) -> list[dict[str, Any]]:
        """Answers of a call, one or a stream of them."""
        done = self.run("-d", json.dumps(request), self.target, f"quatrain.v1.{method}")
        assert done.returncode == 0, done.stderr
        answers, rest, decoder = [], done.stdout.strip(), json.JSONDecoder()
        while rest:
            answer, end = decoder.raw_decode(rest)
            answers.append(answer)
            rest = rest[end:].lstrip()
        return answers


@pytest.fixture
def api(grpcurl: Path, stack: Stack) -> Api:
    return Api(grpcurl, stack.target)


def test_reflection_lists_and_describes(api: Api) -> None:
    services = api.run(api.target, "list").stdout.split()
    methods = api.run(api.target, "list", "quatrain.v1.JobService").stdout.split()
    described = api.run(api.target, "describe", "quatrain.v1.CreateJobRequest").stdout

    assert {"quatrain.v1.JobService", "quatrain.v1.ArtifactService", "grpc.health.v1.Health"} <= set(services)
    assert {"quatrain.v1.JobService.CreateJob", "quatrain.v1.JobService.WatchJob"} <= set(methods)
    assert "request_id" in described


@pytest.mark.parametrize("kind", ["generation", "reward", "reference", "learner"])
def test_every_service_has_reflection_and_health(grpcurl: Path, stack: Stack, kind: str) -> None:
    service = Api(grpcurl, f"127.0.0.1:{stack.processes()[f'{kind}-0'].port}")

    listed = service.run(service.target, "list").stdout
    health = service.run(service.target, "grpc.health.v1.Health/Check").stdout

    assert f"quatrain.v1.{kind.capitalize()}Service" in listed
    assert json.loads(health) == {"status": "SERVING"}


def test_internal_call_without_deadline_is_refused(grpcurl: Path, stack: Stack) -> None:
    service = Api(grpcurl, f"127.0.0.1:{stack.processes()['generation-0'].port}")

    refused = service.run("-d", "{}", service.target, "quatrain.v1.GenerationService/GetGenerationCapabilities")
    answered = service.run(
        "-max-time", "10", "-d", "{}", service.target, "quatrain.v1.GenerationService/GetGenerationCapabilities"
    )

    assert "DEADLINE_REQUIRED" in refused.stderr + refused.stdout
    assert answered.returncode == 0, answered.stderr


def test_job_from_json_is_watched_to_its_end(api: Api, spec: Spec) -> None:
    request = {"request_id": "once", "spec": spec}
    (created,) = api.call("JobService/CreateJob", request)
    job = created["job"]["id"]
    messages = api.call("JobService/WatchJob", {"job_id": job})
    (again,) = api.call("JobService/CreateJob", request)
    (listed,) = api.call("JobService/ListJobs", {})

    assert "snapshot" in messages[0]
    events = [message["event"]["type"] for message in messages if "event" in message]
    assert events[-1] == "job_finished"
    assert messages[-1]["job"]["state"] == "JOB_STATE_SUCCEEDED"
    revisions = [int(message["revision"]) for message in messages if "event" in message]
    assert revisions == sorted(set(revisions))
    assert again["job"]["id"] == job
    assert [entry["id"] for entry in listed["jobs"]] == [job]


def test_same_id_for_another_request_is_refused(api: Api, spec: Spec) -> None:
    (created,) = api.call("JobService/CreateJob", {"job_id": "mine", "request_id": "a", "spec": spec})

    other = api.run(
        "-d",
        json.dumps({"job_id": "mine", "request_id": "b", "spec": {**spec, "seed": 8}}),
        api.target,
        "quatrain.v1.JobService/CreateJob",
    )

    assert created["job"]["id"] == "mine"
    assert other.returncode != 0
    assert "AlreadyExists" in other.stderr


def test_wrong_field_is_named_in_the_details(api: Api, spec: Spec) -> None:
    wrong = {**spec, "ppo": {**spec["ppo"], "kl": {"coef": -1.0}}}

    refused = api.run("-d", json.dumps({"spec": wrong}), api.target, "quatrain.v1.JobService/CreateJob")

    assert "InvalidArgument" in refused.stderr
    assert "ppo.kl.coef" in refused.stderr
