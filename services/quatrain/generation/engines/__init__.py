"""Inference engines behind one small protocol. `generation.engine` names a module of this folder, which has `make`."""

from importlib import import_module

from quatrain.config import ProcessConfig
from quatrain.generation.engines.base import Engine
from quatrain.models.model_runner import Fetch

__all__ = ["make_engine"]


def make_engine(config: ProcessConfig, fetch: Fetch) -> Engine:
    """Return the configured engine. No other engine's module is imported: most of them need a library of their own."""
    module = import_module(f"{__name__}.{config.generation.engine}")
    engine: Engine = module.make(config, fetch)
    return engine
