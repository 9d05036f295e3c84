"""What tells weights in memory apart."""

from dataclasses import dataclass

from quatrain.refs import ModelRef


@dataclass(frozen=True)
class WeightsKey:
    """What makes two requests ask for the same weights: the digest where there is one, wherever the folder lies."""

    weights: str
    dtype: str

    @classmethod
    def of(cls, ref: ModelRef, dtype: str) -> "WeightsKey":
        """The key of a reference."""
        return cls(ref.digest or ref.uri, dtype)
