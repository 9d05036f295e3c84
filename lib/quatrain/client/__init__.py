"""The Python client: the same verbs as the command line, async (`AsyncClient`) and sync (`Client`). Imports no torch.

with Client() as client:
    job = client.submit(Path("spec.yaml"), overrides=["ppo.kl.coef=0.1"])
    job = client.wait(job.id)
    client.download(job.id, Path("my-model"))
"""

from quatrain.client.asynchronous import AsyncClient, WaitTimedOut
from quatrain.client.resources import (
    TERMINAL_STATES,
    Artifact,
    Checkpoint,
    Event,
    ForkedFrom,
    Job,
    JobFailure,
    NamedModel,
    Rollout,
    Update,
)
from quatrain.client.reward_tests import RewardTest, ScoredRow
from quatrain.client.synchronous import Client
from quatrain.refs import ModelRef
from quatrain.rpc.certificates import CertificateFiles

__all__ = [
    "TERMINAL_STATES",
    "Artifact",
    "AsyncClient",
    "CertificateFiles",
    "Checkpoint",
    "Client",
    "Event",
    "ForkedFrom",
    "Job",
    "JobFailure",
    "ModelRef",
    "NamedModel",
    "RewardTest",
    "Rollout",
    "ScoredRow",
    "Update",
    "WaitTimedOut",
]
