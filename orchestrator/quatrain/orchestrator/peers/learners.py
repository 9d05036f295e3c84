"""The pool of learners: finding a free one and opening it for a job, by priority."""

import asyncio
from collections import Counter
from collections.abc import Sequence

from quatrain.errors import TRANSIENT_ERRORS, LearnerBusy, QuatrainError, Unavailable
from quatrain.orchestrator.peers.learner_session import (
    LEARNER_SERVICE,
    STATUS_TIMEOUT_SECONDS,
    LearnerSession,
    OpenCall,
    OwnerToken,
    call_learner,
)
from quatrain.orchestrator.plan import Rank
from quatrain.rpc.certificates import ChannelTls
from quatrain.rpc.client.channel import open_channel
from quatrain.rpc.client.targets import resolve_targets
from quatrain.telemetry.logging import get_logger
from quatrain.v1 import learner_pb2, learner_pb2_grpc

log = get_logger("learners")


class LearnerPool:
    """All learners that the targets name; the targets are read again at every opening, so learners may come and go.

    Waiting jobs form a queue, so that a learner goes to the one of the highest priority and not to the one that happens
    to ask first.
    """

    def __init__(self, targets: Sequence[str], tls: ChannelTls | None = None) -> None:
        self._targets = tuple(targets)
        self._tls = tls
        self._line: dict[str, Rank] = {}
        self._opening: set[str] = set()
        self._count = 0

    async def count(self) -> int:
        """Return how many learners the targets name, reachable or not; the last number while that cannot be told."""
        try:
            self._count = len(await resolve_targets(self._targets))
        except QuatrainError as error:
            log.info("learners not counted", last=self._count, error=error.message)
        return self._count

    async def states(self) -> Counter[str]:
        """Return how many learners are `free`, `busy` with a job, and `silent`. Raises Unavailable."""
        found = await self._statuses()
        return Counter(
            "silent" if isinstance(status, QuatrainError) else "busy" if status.HasField("token") else "free"
            for _, status in found
        )

    async def open(self, call: OpenCall, rank: Rank) -> LearnerSession:
        """Open the first learner that takes the job: one that holds it already, else a free one.

        A refused job stays in the queue until `leave`. Raises LearnerBusy when all are busy or another job is
        before this one, Unavailable when none answers, and what Open itself refuses.
        """
        job = call.token.job
        self._line[job] = rank
        reachable = await self._reachable()
        if not reachable:
            raise Unavailable(f"no learner answers at {', '.join(self._targets)}: start one, or look at its log")
        mine = [a for a, s in reachable if s.HasField("token") and s.token.job == job]
        free = [a for a, s in reachable if not s.HasField("token") and a not in self._opening]
        before = sorted(self._line, key=self._line.__getitem__)[: len(free)]
        if not mine and free and job not in before:
            raise LearnerBusy(f"the free learners go to {', '.join(map(repr, before))}")
        refusal = ""
        for address in [*mine, *free]:
            self._line.pop(job, None)  # This learner is ours; the next job may take another one.
            self._opening.add(address)
            try:
                return await _open_at(address, call, self._tls)
            except (LearnerBusy, *TRANSIENT_ERRORS) as error:
                log.info("learner not taken", address=address, error=error.message)
                refusal = error.message
            finally:
                self._opening.discard(address)
            self._line[job] = rank
        raise LearnerBusy(refusal or f"all {len(reachable)} learners are busy")

    def leave(self, job: str) -> None:
        """Take the job out of the queue."""
        self._line.pop(job, None)

    async def free(self, job: str) -> None:
        """Close what was left open for a job. A learner that cannot be reached frees itself in time."""
        try:
            reachable = await self._reachable()
        except QuatrainError as error:
            log.info("learners not freed", job=job, error=error.message)
            return
        for address, status in reachable:
            if status.HasField("token") and status.token.job == job:
                await LearnerSession(address, OwnerToken.from_proto(status.token), self._tls).close()

    async def _reachable(self) -> list[tuple[str, learner_pb2.GetStatusResponse]]:
        reachable: list[tuple[str, learner_pb2.GetStatusResponse]] = []
        for address, status in await self._statuses():
            if isinstance(status, QuatrainError):
                log.info("learner does not answer", address=address, error=status.message)
            else:
                reachable.append((address, status))
        return reachable

    async def _statuses(self) -> list[tuple[str, learner_pb2.GetStatusResponse | QuatrainError]]:
        addresses = await resolve_targets(self._targets)
        found = await asyncio.gather(*(_status(address, self._tls) for address in addresses))
        return list(zip(addresses, found, strict=True))


async def _open_at(address: str, call: OpenCall, tls: ChannelTls | None) -> LearnerSession:
    session = LearnerSession(address, call.token, tls)
    opened = False
    try:
        await session.open(call)
        opened = True
    except asyncio.CancelledError:
        await session.close()  # It may serve us by now, and nobody would free it.
        raise
    finally:
        if not opened:
            await session.abandon()
    return session


async def _status(address: str, tls: ChannelTls | None) -> learner_pb2.GetStatusResponse | QuatrainError:
    channel = open_channel(address, service=LEARNER_SERVICE, tls=tls)
    try:
        stub = learner_pb2_grpc.LearnerServiceStub(channel)
        request = learner_pb2.GetStatusRequest()
        status: learner_pb2.GetStatusResponse = await call_learner(
            address, lambda: stub.GetStatus(request, timeout=STATUS_TIMEOUT_SECONDS)
        )
        return status
    except QuatrainError as error:
        return error
    finally:
        await channel.close(None)
