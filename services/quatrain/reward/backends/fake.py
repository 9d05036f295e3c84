"""A source without a model: for tests, and for measuring everything around the models."""

import zlib

from quatrain.jobspec.reward_section import Source
from quatrain.reward.backends.base import SourceScores
from quatrain.reward.samples import Batch


class FakeBackend:
    """A score for any source: a number in [-1, 1) that depends on prompt and completion ids and on nothing else."""

    async def score(self, source: Source, batch: Batch) -> SourceScores:
        """Score by the ids alone: the same ids always get the same score."""
        values = tuple(
            zlib.crc32(repr((sample.prompt_ids, sample.completion_ids)).encode()) / 2**31 - 1.0
            for sample in batch.samples
        )
        return SourceScores(values=values, terms={source.name: values}, version="fake")

    async def close(self) -> None:
        """Do nothing: there are no resources."""
