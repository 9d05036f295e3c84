"""Naming a model folder."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelRef:
    """One immutable model folder: where it is and the digest of its manifest (proto `ModelRef`).

    `policy_version` is the number of PPO steps that made it, None for a model that is not a policy version.
    """

    uri: str
    digest: str
    policy_version: int | None = None
