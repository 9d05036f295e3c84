"""Calls with the token of an owner that lost the job without knowing it: the learner must refuse every one."""

import contextlib

import grpc
from tests.chaos.checker import FolderObjects
from tests.chaos.checker.history import read_history
from tests.chaos.stack import ChaosStack

from quatrain.v1 import common_pb2, learner_pb2, learner_pb2_grpc

CALL_SECONDS = 5.0


def use_stale_tokens(stack: ChaosStack, job: str) -> str:
    """Ask every learner to step, save and close for an old attempt; return what was not refused, in words."""
    history = read_history(FolderObjects(stack.home / "store"), job)
    newest = max((event.attempt for event in history.events), default=0)
    epoch = max((event.epoch for event in history.events), default=1)
    stale = common_pb2.OwnerToken(job=job, epoch=epoch, attempt=newest - 1)
    taken = []
    for process in stack.of_kind("learner"):
        with grpc.insecure_channel(f"127.0.0.1:{process.port}") as channel:
            stub = learner_pb2_grpc.LearnerServiceStub(channel)
            for step in range(1, 4):
                try:
                    list(stub.Step(learner_pb2.StepRequest(token=stale, step=step), timeout=CALL_SECONDS))
                    taken.append(f"learner took step {step} of a stale token")
                except grpc.RpcError:
                    pass
            try:
                list(stub.Save(learner_pb2.SaveRequest(token=stale, step=1), timeout=CALL_SECONDS))
                taken.append("learner saved for a stale token")
            except grpc.RpcError:
                pass
            # Close for a token that owns nothing ends nothing: the unbroken outcome shows it.
            with contextlib.suppress(grpc.RpcError):
                stub.Close(learner_pb2.CloseRequest(token=stale), timeout=CALL_SECONDS)
    return "; ".join(taken)
