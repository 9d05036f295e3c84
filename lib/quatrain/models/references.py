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


@dataclass(frozen=True)
class WeightsKey:
    """What makes two requests ask for the same weights: the digest where there is one, wherever the folder lies."""

    weights: str
    dtype: str

    @classmethod
    def of(cls, ref: ModelRef, dtype: str) -> "WeightsKey":
        """The key of a reference."""
        return cls(ref.digest or ref.uri, dtype)
