"""Every public method against hostile requests: clean errors, no secret told, and sound calls work afterwards."""

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from tests.fuzz.calls import Fuzzer, service_of
from tests.fuzz.mutations import any_value, hostile_json, scalar
from tests.integration.orchestrator.test_api import Api, api_of, idle
from tests.integration.orchestrator.world import World, deployment, put_rows, run

from quatrain.digests import sha256_hex
from quatrain.errors import InvalidInput, InvalidSpec
from quatrain.joblog import JobLog
from quatrain.jobspec import parse_spec, spec_to_proto
from quatrain.reward.backends.functions import FunctionBackend, FunctionSettings
from quatrain.storage.local import LocalStore
from quatrain.v1 import artifact_pb2, job_pb2, spec_pb2

SERVICES = (service_of(job_pb2, "JobService"), service_of(artifact_pb2, "ArtifactService"))
SECRET = "planted-secret-4c1d"


def known(world: World) -> dict[str, Any]:
    """Sound values, so that a hostile field is not hidden by another one."""
    digest = world.model_uri.removeprefix("sha256:")
    return {
        "job_id": "job-1",
        "spec": spec_to_proto(parse_spec(world.spec())),
        "uri": world.model_uri,
        "digest": digest,
        "validate_only": True,
        "step": 3,
        "name": "a-name",
        "path": "config.json",
        "reason": "because",
    }


async def finished_job(root: Path, store: LocalStore) -> None:
    async with deployment(root / "before", store=store) as world:
        for job in ("job-1", "job-gone"):
            await world.submit(world.spec(steps=2), job)
            await world.end_of(job)


def attack(tmp_path: Path, seed: int, rounds: int, specs: int) -> Fuzzer:
    """A server that has one finished job, and all that is thrown at it."""

    async def scenario() -> Fuzzer:
        store = LocalStore(tmp_path / "store")
        await finished_job(tmp_path, store)
        async with deployment(tmp_path, learners=0, workers=0, schedulers=0, store=store) as world:
            address = await world.serve("JobService", api_of(world), public=True)
            async with grpc.aio.insecure_channel(address) as channel:
                fuzzer = Fuzzer(channel, known(world), (SECRET,), of_method={"DeleteJob": {"job_id": "job-gone"}})
                for service in SERVICES:
                    await fuzzer.attack(service, seed, rounds)
                await attack_specs(fuzzer, world, seed, specs)
                await still_works(Api(channel), world)
        return fuzzer

    found: list[Fuzzer] = []

    async def main() -> None:
        found.append(await scenario())

    run(main, limit=600.0)
    return found[0]


async def attack_specs(fuzzer: Fuzzer, world: World, seed: int, count: int) -> None:
    """Sound specs but for one or two fields, and data files that are not what they should be."""
    method = SERVICES[0].methods_by_name["CreateJob"]
    sound = world.spec()
    for number in range(count):
        random_ = random.Random(f"{seed}/spec/{number}")
        request = job_pb2.CreateJobRequest(validate_only=random_.random() < 0.5)
        request.spec.CopyFrom(spec_to_proto(parse_spec(sound)))
        _spoil(random_, request.spec)
        if random_.random() < 0.4:
            rows = [hostile_json(random_, {"prompt": "ab", "topic": "t"}, 2) for _ in range(3)]
            request.spec.ppo.prompts.uri = put_hostile(world, random_, rows)
        code, text = await fuzzer.send(method, [request.SerializeToString()])
        fuzzer.codes.setdefault("CreateJob", {}).setdefault(code.name, 0)
        fuzzer.codes["CreateJob"][code.name] += 1
        if code.name in ("INTERNAL", "UNKNOWN", "DATA_LOSS", "DEADLINE_EXCEEDED"):
            fuzzer.wrong.append(f"{seed}/spec/{number}: {code.name} {text[:300]}")


def put_hostile(world: World, random_: random.Random, rows: list[Any]) -> str:
    try:
        return put_rows(world.store, [row if isinstance(row, dict) else {"prompt": row} for row in rows])
    except (ValueError, RecursionError):  # Python itself cannot write it
        return put_rows(world.store, [{"prompt": random_.choice(("a" * 10_000, "", "zz"))}])


def _spoil(random_: random.Random, spec: spec_pb2.JobSpec) -> None:
    """One scalar field somewhere gets a hostile value of its type."""
    message: Any = spec
    while True:
        fields = [field for field in message.DESCRIPTOR.fields if not field.is_repeated]
        field = random_.choice(fields)
        if field.message_type is None:
            setattr(message, field.name, scalar(random_, field))
            return
        message = getattr(message, field.name)


async def still_works(api: Api, world: World) -> None:
    request = job_pb2.CreateJobRequest(
        spec=spec_to_proto(parse_spec(world.spec())), job_id="sound", validate_only=False
    )
    assert (await api.call("CreateJob", request)).job.id == "sound"
    assert (await api.call("GetJob", job_pb2.GetJobRequest(job_id="job-1"))).job.id == "job-1"
    assert len((await api.call("ListJobs", job_pb2.ListJobsRequest())).jobs) >= 2
    assert (await api.upload(b"some bytes")).object.size == 10
    events = await asyncio.to_thread(lambda: JobLog(world.store, "job-1").refresh())
    assert SECRET not in json.dumps([event.data for event in events])


def test_every_public_method_answers_hostile_requests_with_clean_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("QUATRAIN_STORAGE__SECRET_KEY", "QUATRAIN_QUEUE__URL", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, SECRET)

    fuzzer = attack(tmp_path, seed=1, rounds=8, specs=60)

    assert fuzzer.wrong == []
    assert set(fuzzer.codes) == {method.name for service in SERVICES for method in service.methods}
    assert SECRET not in "".join(capfd.readouterr())


def test_a_page_token_of_thousands_of_digits_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with idle(tmp_path) as (_, api):
            with pytest.raises(InvalidInput, match="page_token"):
                await api.call("ListJobs", job_pb2.ListJobsRequest(page_token="9" * 6000))

    run(scenario)


def test_a_time_limit_beyond_every_clock_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with idle(tmp_path) as (world, api):
            request = job_pb2.CreateJobRequest(spec=spec_to_proto(parse_spec(world.spec())))
            request.spec.reward.timeout = 1e308
            with pytest.raises(InvalidInput, match=r"reward\.timeout"):
                await api.call("CreateJob", request)

    run(scenario)


@pytest.mark.parametrize(("path", "field"), [("greedy.py:zero", "reward.functions.0"), ("subprocess:run", "reward")])
def test_code_that_the_operator_does_not_allow_is_refused_when_the_job_is_submitted(
    tmp_path: Path, path: str, field: str
) -> None:
    code = b"def zero(completions, **kwargs): return [0.0] * len(completions)"

    async def scenario() -> None:
        store = LocalStore(tmp_path / "store")
        world = World(tmp_path, store)
        functions: Any = FunctionBackend(store, FunctionSettings(allow_code=False))
        world.reward = functions
        await world.start(learners=0)
        try:
            digest = sha256_hex(code)
            store.put(f"data/sha256/{digest}", code)
            named = {"path": path, **({"code_digest": digest} if ".py" in path else {})}
            with pytest.raises(InvalidSpec, match=r"reward\.(allow_code|packages)") as caught:
                await world.submit({**world.spec(), "reward": {"functions": [named]}})
            assert [violation.field for violation in caught.value.violations] == [field]
        finally:
            await world.close()

    run(scenario)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(2, 6))
def test_many_more_hostile_requests(tmp_path: Path, seed: int) -> None:
    assert attack(tmp_path, seed, rounds=60, specs=300).wrong == []


def test_a_json_value_of_any_kind_has_been_tried() -> None:
    """The generator reaches what it should: texts, numbers beyond floats, surrogates, depth."""
    values = [any_value(random.Random(seed)) for seed in range(300)]

    assert any(isinstance(value, str) and "\0" in value for value in values)
    assert any(value == 10**400 for value in values if isinstance(value, int))
    assert any(value != value for value in values if isinstance(value, float))
