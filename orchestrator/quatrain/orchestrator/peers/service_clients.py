"""Calls to the generation, reward and reference services, for the rollout worker and the pre-flight checks."""

from dataclasses import dataclass

from quatrain.rpc.targets import TargetPool
from quatrain.v1 import (
    generation_pb2,
    generation_pb2_grpc,
    reference_pb2,
    reference_pb2_grpc,
    reward_pb2,
    reward_pb2_grpc,
)


@dataclass(frozen=True)
class Services:
    """One pool of replicas for each of the three stateless services. Every call takes its time-out in seconds."""

    generation: TargetPool
    reward: TargetPool
    reference: TargetPool

    async def generate(
        self, request: generation_pb2.GenerateRequest, timeout: float
    ) -> generation_pb2.GenerateResponse:
        """Samples a chunk."""
        return await self.generation.call(
            lambda channel: generation_pb2_grpc.GenerationServiceStub(channel).Generate, request, timeout=timeout
        )

    async def capabilities(self, timeout: float) -> generation_pb2.GetGenerationCapabilitiesResponse:
        """What the generation replicas can do."""
        return await self.generation.call(
            lambda channel: generation_pb2_grpc.GenerationServiceStub(channel).GetGenerationCapabilities,
            generation_pb2.GetGenerationCapabilitiesRequest(),
            timeout=timeout,
        )

    async def score(self, request: reward_pb2.ScoreRequest, timeout: float) -> reward_pb2.ScoreResponse:
        """Scores a chunk."""
        return await self.reward.call(
            lambda channel: reward_pb2_grpc.RewardServiceStub(channel).Score, request, timeout=timeout
        )

    async def reference_logprobs(
        self, request: reference_pb2.ComputeReferenceLogprobsRequest, timeout: float
    ) -> reference_pb2.ComputeReferenceLogprobsResponse:
        """Logprobs under the reference model."""
        return await self.reference.call(
            lambda channel: reference_pb2_grpc.ReferenceServiceStub(channel).ComputeReferenceLogprobs,
            request,
            timeout=timeout,
        )

    def wait_no_more(self) -> None:
        """From now on a call that no replica takes at once fails."""
        for pool in (self.generation, self.reward, self.reference):
            pool.wait_no_more()

    async def close(self) -> None:
        """Closes all channels."""
        for pool in (self.generation, self.reward, self.reference):
            await pool.close()
