"""From a sealed batch to the rows that a PPO step trains on: rollouts only, each checked before it can do harm."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quatrain.batches import BatchRow, read_batch
from quatrain.errors import InvalidInput


@dataclass(frozen=True)
class PpoRows:
    """The rollouts of a step in the batch's order, how far each is behind, and how many rows were left out."""

    rollouts: Sequence[BatchRow]
    staleness: Sequence[int]
    refused: int
    skipped: int

    @property
    def scores(self) -> list[float]:
        """Return the final score of each rollout."""
        return [float(row.score or 0.0) for row in self.rollouts]

    @property
    def groups(self) -> list[int]:
        """Return one number for each rollout, equal for the samples of one prompt."""
        return [row.prompt_index for row in self.rollouts]

    @property
    def terms(self) -> dict[str, list[float | None]]:
        """Return reward terms by name, one value a rollout; None where a term does not apply."""
        documents = [json.loads(row.terms) for row in self.rollouts]
        names = sorted({name for document in documents for name in document})
        return {name: [document.get(name) for document in documents] for name in names}


@dataclass(frozen=True)
class Bounds:
    """What the policy can read: ids below `vocabulary`, at most `positions` tokens in a row."""

    vocabulary: int
    positions: int


def read_rows(data: bytes, policy_version: int, bounds: Bounds) -> PpoRows:
    """Return the rollouts of a sealed batch for the step that trains `policy_version`.

    Refused and skipped rows have no weight: they are taken out here, before every mean and every whitening. Raises
    Corrupt for bytes that are no batch and InvalidInput for a rollout that should have been refused.
    """
    rows = read_batch(data)
    rollouts = [row for row in rows if row.status == "rollout"]
    for row in rollouts:
        problem = _problem(row, policy_version, bounds)
        if problem:
            raise InvalidInput(
                f"Rollout {row.rollout_id} of the sealed batch {problem}; such a sample must be sealed as refused."
            )
    return PpoRows(
        rollouts=rollouts,
        staleness=[policy_version - row.policy_version for row in rollouts],
        refused=sum(row.status == "refused" for row in rows),
        skipped=sum(row.status == "skipped" for row in rows),
    )


def _problem(row: BatchRow, policy_version: int, bounds: Bounds) -> str | None:
    ids = np.concatenate([row.prompt_ids, row.completion_ids])
    length = len(row.completion_ids)
    if length == 0 or len(row.prompt_ids) == 0:
        return "has an empty prompt or completion"
    if len(ids) > bounds.positions:
        return f"has {len(ids)} tokens, more than the model's {bounds.positions} positions"
    if ids.min() < 0 or ids.max() >= bounds.vocabulary:
        return f"has a token id outside 0..{bounds.vocabulary - 1}"
    if len(row.logprobs) != length or len(row.ref_logprobs) != length:
        return "has not one logprob for each completion token"
    if row.score is None or not math.isfinite(row.score):
        return f"has the score {row.score}"
    if not (np.isfinite(row.logprobs).all() and np.isfinite(row.ref_logprobs).all()):
        return "has a logprob that is not finite"
    if row.policy_version > policy_version:
        return f"was made by version {row.policy_version}, which the policy at version {policy_version} has not reached"
    return None
