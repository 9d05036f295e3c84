"""Whose jobs a caller sees through the API, over gRPC with real tokens; and that no token shows up anywhere."""

import contextlib
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.protobuf.message_factory import GetMessageClass
from tests.integration.orchestrator.test_api import api_of
from tests.integration.orchestrator.world import World, deployment, run

from quatrain.config import ServerConfig
from quatrain.errors import NotFound, PermissionRefused, QuatrainError
from quatrain.jobspec import parse_spec, spec_to_proto
from quatrain.orchestrator.api.access import ROLES
from quatrain.rpc.errors import from_rpc_error
from quatrain.rpc.server.access import Access
from quatrain.rpc.server.server import RpcServer
from quatrain.rpc.server.tokens import TokenFile, line_of, new_token
from quatrain.v1 import artifact_pb2, artifact_pb2_grpc, job_pb2, job_pb2_grpc

PEOPLE = {
    "ana": new_token("ana", "submitter"),
    "eve": new_token("eve", "submitter"),
    "bo": new_token("bo", "submitter", tenants=["ana"]),
    "ana-reads": new_token("ana", "viewer"),
    "grafana": new_token("grafana", "viewer", tenants=["*"]),
    "root": new_token("root", "admin"),
}
JOB_SERVICE = job_pb2.DESCRIPTOR.services_by_name["JobService"]
# Methods about one existing job; CreateJob's job_id is that of a new one.
ABOUT_A_JOB = [
    method
    for method in JOB_SERVICE.methods
    if "job_id" in method.input_type.fields_by_name and method.name != "CreateJob"
]


class Callers:
    """The API, called with one person's token or another's."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stubs = (job_pb2_grpc.JobServiceStub(channel), artifact_pb2_grpc.ArtifactServiceStub(channel))

    async def call(self, person: str, method: str, request: Any) -> Any:
        """The answer, of a stream the first message. Raises our errors."""
        stub = next(stub for stub in self._stubs if hasattr(stub, method))
        metadata = (("authorization", f"Bearer {PEOPLE[person][0]}"),)
        try:
            call = getattr(stub, method)(request, timeout=20.0, metadata=metadata)
            return await (call if isinstance(call, grpc.aio.UnaryUnaryCall) else call.read())
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, service="api", target="here") from error

    async def outcome(self, person: str, method: str, request: Any) -> tuple[type[QuatrainError] | None, str]:
        """The class and the text of the error, if there was one."""
        try:
            await self.call(person, method, request)
        except QuatrainError as error:
            return type(error), error.message
        return None, ""

    async def listed(self, person: str) -> set[str]:
        answer = await self.call(person, "ListJobs", job_pb2.ListJobsRequest())
        return {job.id for job in answer.jobs}


@contextlib.asynccontextmanager
async def tenants(root: Path, *, idle: bool = False) -> AsyncIterator[tuple[World, Callers]]:
    """A deployment whose API knows `PEOPLE`; an idle one starts no job."""
    tokens = root / "tokens.yaml"
    tokens.write_text("".join(f"{line_of(entry)}\n" for _, entry in PEOPLE.values()))
    some = 0 if idle else 1
    async with deployment(root / "world", workers=some, schedulers=some) as world:
        add = api_of(world)

        def register(server: grpc.aio.Server) -> list[str]:
            add(server)
            return ["quatrain.v1.JobService", "quatrain.v1.ArtifactService"]

        access = Access(ROLES, TokenFile(tokens))
        server = RpcServer(ServerConfig(shutdown_grace=0.0), "api", register, public=True, access=access)
        await server.start()
        try:
            await server.serve()
            async with grpc.aio.insecure_channel(f"127.0.0.1:{server.ports.port}") as channel:
                yield world, Callers(channel)
        finally:
            await server.stop()


async def submit(world: World, callers: Callers, person: str, job: str) -> None:
    request = job_pb2.CreateJobRequest(spec=spec_to_proto(parse_spec(world.spec())), job_id=job)
    created = (await callers.call(person, "CreateJob", request)).job
    assert created.owner == person


def request_for(method: Any, job: str) -> Any:
    message = GetMessageClass(method.input_type)
    return message(job_id=job)


def test_to_others_a_job_is_as_if_it_did_not_exist(tmp_path: Path) -> None:
    """Every method about a job, those that come later too: same class and same words as for a job that is not there."""

    async def work() -> None:
        async with tenants(tmp_path, idle=True) as (world, callers):
            await submit(world, callers, "ana", "job-a")
            for method in ABOUT_A_JOB:
                of_ana = await callers.outcome("eve", method.name, request_for(method, "job-a"))
                of_nobody = await callers.outcome("eve", method.name, request_for(method, "job-b"))
                assert of_ana[0] is not None, method.name
                assert of_ana == (of_nobody[0], of_nobody[1].replace("job-b", "job-a")), method.name
            assert (await callers.outcome("eve", "GetJob", job_pb2.GetJobRequest(job_id="job-a")))[0] is NotFound
            assert await callers.listed("eve") == set()

    run(work)


def test_who_may_only_read_changes_nothing(tmp_path: Path) -> None:
    async def work() -> None:
        async with tenants(tmp_path, idle=True) as (world, callers):
            await submit(world, callers, "ana", "job-a")
            await submit(world, callers, "eve", "job-e")
            assert await callers.listed("ana") == await callers.listed("ana-reads") == {"job-a"}
            assert await callers.listed("eve") == {"job-e"}
            assert await callers.listed("bo") == {"job-a"}
            assert await callers.listed("grafana") == await callers.listed("root") == {"job-a", "job-e"}
            get, cancel = job_pb2.GetJobRequest(job_id="job-a"), job_pb2.CancelJobRequest(job_id="job-a")
            for reader in ("ana-reads", "bo", "grafana"):
                await callers.call(reader, "GetJob", get)
                with pytest.raises(PermissionRefused):
                    await callers.call(reader, "CancelJob", cancel)
            assert "cancel_requested" not in {event.type for event in world.events("job-a")}
            await callers.call("root", "CancelJob", cancel)
            (event,) = world.events("job-a", "cancel_requested")
            assert event.actor == "root"

    run(work)


def test_a_job_id_that_is_taken_tells_nothing_about_its_job(tmp_path: Path) -> None:
    async def work() -> None:
        async with tenants(tmp_path, idle=True) as (world, callers):
            await submit(world, callers, "ana", "job-a")
            request = job_pb2.CreateJobRequest(spec=spec_to_proto(parse_spec(world.spec())), job_id="job-a")
            kind, message = await callers.outcome("eve", "CreateJob", request)
            assert kind is not None
            assert "ana" not in message
            # The same request id of two people is two jobs.
            request = job_pb2.CreateJobRequest(spec=request.spec, request_id="r")
            jobs = {(await callers.call(person, "CreateJob", request)).job.id for person in ("ana", "eve", "ana")}
            assert len(jobs) == 2

    run(work)


def test_a_whole_job_of_a_tenant_leaves_no_token_behind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither in a log, nor in the store, nor in an event; the job's owner is its submitter."""

    async def work() -> None:
        async with tenants(tmp_path) as (world, callers):
            await submit(world, callers, "ana", "job-a")
            view = await world.end_of("job-a")
            assert view.state == "SUCCEEDED"
            await callers.call("eve", "ListModels", artifact_pb2.ListModelsRequest())
            kept = b"".join(world.store.get(stat.key) for stat in world.store.list(""))
            for token, entry in PEOPLE.values():
                assert token.encode() not in kept
                assert entry["sha256"].encode() not in kept
            document = json.loads(world.store.get("jobs/job-a/spec.json"))
            assert document["owner"] == "ana"

    with caplog.at_level(logging.DEBUG):
        run(work)
    assert caplog.text
    for token, entry in PEOPLE.values():
        assert token not in caplog.text
        assert entry["sha256"] not in caplog.text
