"""No wait without a deadline or a heartbeat: all code is walked, and each exception stands here with its reason."""

import pytest
from tests.unit.deadlines.waits import rpc_methods, waits, waits_in

LIB, SERVICES, ORCHESTRATOR = "lib/quatrain/", "services/quatrain/", "orchestrator/quatrain/orchestrator/"
NO_WAIT = "does not wait"
DONE = "the future is done"
BEATS = "a stream that `result_of` reads: it ends when heartbeats stop"
OWN_TASKS = "waits for tasks of this process, whose waits are bounded themselves"
STOP = "the process serves until somebody stops it"
IDLE = "a thread or task without work, which holds nothing up"
UNDER_TIMEOUT = "called under asyncio.timeout"
COMPUTES = "half of a computation; compute.stuck_after bounds it"
READER = "its reader tries again forever; limits and intents end it, a condition says what it waits for"
COLLECTS = "stalled chunks are made again; limits and intents end it, a condition says what it waits for"
GIVES_UP = "one of the two gives up at the task's deadline"
FILE = "a file of this machine"
SOCKET = "the pool's read time-out bounds each read"

ALLOWED = {
    f"{LIB}cli/jobs.py::submit::sys.stdin.read()": "what the person pipes in; Ctrl-C ends it",
    f"{LIB}cli/rewards.py::try_reward::sys.stdin.read()": "what the person pipes in; Ctrl-C ends it",
    f"{LIB}data/files/csv_rows.py::_lines::stream.readline()": FILE,
    f"{LIB}data/files/json_rows.py::_read_lines::stream.readline()": FILE,
    f"{LIB}data/files/json_rows.py::_skip_blank_lines::stream.readline()": FILE,
    f"{LIB}data/files/json_rows.py::read_json::stream.readline()": FILE,
    f"{LIB}client/synchronous.py::Client.close::self._thread.join()": "its loop was told to stop and runs nothing else",
    f"{LIB}client/synchronous.py::Client._run::future.result()": "the asynchronous client bounds every call",
    f"{LIB}concurrency.py::run_until_first_exit::asyncio.wait()": OWN_TASKS,
    f"{LIB}concurrency.py::run_until_first_exit::task.result()": DONE,
    f"{LIB}concurrency.py::uncancellable::asyncio.wait()": "a thread of the store, whose patience is bounded",
    f"{LIB}rpc/server/access.py::caller::_caller.get()": NO_WAIT,
    f"{LIB}rpc/certificates.py::Certificates._read::self._watched.read()": NO_WAIT,
    f"{LIB}rpc/server/tokens.py::TokenFile._read::self._files.read()": NO_WAIT,
    f"{LIB}rpc/client/peers.py::Peer._probe::health_pb2_grpc.HealthStub(self.channel).Check": "has a time-out below",
    f"{LIB}rpc/server/server.py::_unless_stopped::stopping.wait()": STOP,
    f"{LIB}rpc/server/server.py::_unless_stopped::asyncio.wait()": STOP,
    f"{LIB}rpc/server/server.py::_first_of::stopping.wait()": STOP,
    f"{LIB}rpc/server/server.py::_first_of::asyncio.wait()": STOP,
    f"{LIB}rpc/streams.py::with_heartbeats::future.result()": DONE,
    f"{LIB}process/model_thread.py::ModelThread._work::self._jobs.get()": IDLE,
    f"{LIB}storage/s3.py::S3Store._read_back::response.read()": SOCKET,
    f"{LIB}storage/s3.py::S3Store._read_range::response.read()": SOCKET,
    f"{SERVICES}learner/__main__.py::_follow.follow::joined.wait()": "joining has its patience, then the process ends",
    f"{SERVICES}learner/backends/lanes.py::TwoLanes.run::other.result()": COMPUTES,
    f"{SERVICES}learner/service.py::LearnerService.hand_back::asyncio.wait()": "run_server gives it `shutdown_grace`",
    f"{SERVICES}learner/service.py::LearnerService.open::asyncio.wait()": "the caller's deadline ends it",
    f"{SERVICES}learner/service.py::LearnerService.open::session.opening.result()": DONE,
    f"{SERVICES}reward/backends/process.py::FunctionProcess._send_and_receive::stdin.drain()": UNDER_TIMEOUT,
    f"{SERVICES}reward/backends/process.py::FunctionProcess._send_and_receive::stdout.readexactly()": UNDER_TIMEOUT,
    f"{SERVICES}reward/runner/__main__.py::main::inbox.get()": "ends with the service's pipe, read by another thread",
    f"{ORCHESTRATOR}rollout/collector.py::Collector.expect::self._caught_up.wait()": READER,
    f"{ORCHESTRATOR}rollout/collector.py::Collector.collect::pending.done.wait()": COLLECTS,
    f"{ORCHESTRATOR}rollout/collector.py::Collector._delete_objects::self._deletions.get()": IDLE,
    f"{ORCHESTRATOR}peers/learner_session.py::LearnerSession.train::self._stub.Step()": BEATS,
    f"{ORCHESTRATOR}peers/learner_session.py::LearnerSession.publish::self._stub.Publish()": BEATS,
    f"{ORCHESTRATOR}peers/learner_session.py::LearnerSession.save::self._stub.Save()": BEATS,
    f"{ORCHESTRATOR}peers/learner_session.py::LearnerSession.export::self._stub.Export()": BEATS,
    f"{ORCHESTRATOR}submission/hub/http.py::_ask::_may_go_on.get()": NO_WAIT,
    f"{ORCHESTRATOR}submission/lora.py::_Merging._add_product::parts[name].read()": FILE,
    f"{ORCHESTRATOR}submission/lora.py::_Merging._add_product::weight.read()": FILE,
    f"{ORCHESTRATOR}submission/lora.py::_Merging._replace::tensor.read()": FILE,
    f"{ORCHESTRATOR}retention/owner_cleanup.py::delete_released::run.released.wait()": IDLE,
    f"{ORCHESTRATOR}rollout/worker.py::RolloutWorker._work::asyncio.wait()": GIVES_UP,
    f"{ORCHESTRATOR}job/run.py::JobRun._until_stop_is_asked::self.stopping.wait()": OWN_TASKS,
    f"{ORCHESTRATOR}job/run.py::JobRun._until_stop_is_asked::asyncio.wait()": OWN_TASKS,
    f"{ORCHESTRATOR}ownership/scheduler.py::Scheduler.run::counting.result()": DONE,
}


def test_every_wait_has_an_end_or_a_reason() -> None:
    found = waits()
    assert {wait.key for wait in found} == set(ALLOWED), "new ones need a time-out, or a line in the table above"


def test_the_methods_are_those_of_all_services() -> None:
    methods = rpc_methods()
    assert {"Step", "Generate", "Score", "ComputeReferenceLogprobs", "WatchJob", "Upload", "Check"} <= methods


@pytest.mark.parametrize(
    "code",
    [
        "stub.GetStatus(request)",
        "LearnerServiceStub(channel).Open(request, metadata=m)",
        "method = stub.Score",
        "event.wait()",
        "thread.join()",
        "queue.get()",
        "lock.acquire()",
        "process.communicate()",
        "asyncio.wait({task})",
        "subprocess.run(['ls'])",
        "Minio('host')",
        "PoolManager()",
        "Redis.from_url(url)",
        "socket.create_connection(address)",
    ],
)
def test_open_ends_are_found(code: str) -> None:
    assert [wait.line for wait in waits_in(code, "x.py")] == [1]


@pytest.mark.parametrize(
    "code",
    [
        "stub.GetStatus(request, timeout=5.0)",
        "pool.call(lambda channel: GenerationServiceStub(channel).Generate, request, timeout=1.0)",
        "super().Step(request, context)",
        "event.wait(5.0)",
        "names.get('a')",
        "', '.join(names)",
        "asyncio.wait({task}, timeout=1.0)",
        "asyncio.wait_for(event.wait(), 1.0)",
        "async def f():\n  async with asyncio.timeout(1.0):\n    await event.wait()",
        "process.wait(timeout=3.0)",
    ],
)
def test_bounded_waits_are_left_alone(code: str) -> None:
    assert waits_in(code, "x.py") == []


def test_a_bound_does_not_reach_into_what_runs_later() -> None:
    code = (
        "async def f():\n  async with asyncio.timeout(1.0):\n    async def g():\n      await event.wait()\n    return g"
    )
    assert [wait.what for wait in waits_in(code, "x.py")] == ["event.wait()"]
