"""Inference engines behind one small protocol, and how the configured one is made."""

from quatrain.generation.engines.base import Engine
from quatrain.generation.engines.fake import FakeEngine

__all__ = ["make_engine"]


def make_engine(name: str, *, device: str, threads: int, fake_latency: float) -> Engine:
    """The engine called `name` (`transformers` or `fake`). torch is imported only for the one that needs it."""
    if name == "fake":
        return FakeEngine(latency=fake_latency)
    from quatrain.generation.engines.transformers import TransformersEngine

    return TransformersEngine(device, threads=threads)
