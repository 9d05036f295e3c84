"""The key by which services keep weights in memory."""

from dataclasses import dataclass

from quatrain.refs import ModelRef


@dataclass(frozen=True)
class WeightsKey:
    """Equal for requests that ask for the same weights: the digest if there is one, wherever the folder is."""

    weights: str
    dtype: str

    @classmethod
    def of(cls, ref: ModelRef, dtype: str) -> "WeightsKey":
        """Return the key of a reference."""
        return cls(ref.digest or ref.uri, dtype)
