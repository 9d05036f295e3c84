"""`python -m tests.chaos.fakes KIND`: the process that serves KIND, with everything real but what computes.

The fakes agree on logprobs (all say -1), so that the probe before the first step passes, and none imports torch, so
that a killed process is back within a second.
"""

import runpy
import sys
from types import ModuleType
from typing import Any

from tests.integration.orchestrator.fakes import AgreeingEngine, AgreeingReference

from quatrain.generation import engines
from quatrain.local.layout import MODULES
from quatrain.reward.backends import models
from quatrain.reward.backends.fake import FakeBackend


def _engine(*_: Any, **__: Any) -> AgreeingEngine:
    return AgreeingEngine()


def _reference(*_: Any, **__: Any) -> AgreeingReference:
    return AgreeingReference()


def _reward_models(*_: Any, **__: Any) -> FakeBackend:
    return FakeBackend()


def replace_models(kind: str) -> None:
    """Puts fakes in the places of what would load a model."""
    if kind == "generation":
        engines.make_engine = _engine
    elif kind == "reward":
        models.ModelBackend = _reward_models  # type: ignore[assignment,misc]
    elif kind == "reference":
        transformers = ModuleType("quatrain.reference.backends.transformers")
        transformers.TransformersBackend = _reference  # type: ignore[attr-defined]
        sys.modules[transformers.__name__] = transformers


if __name__ == "__main__":
    chosen = sys.argv.pop(1)
    replace_models(chosen)
    runpy.run_module(MODULES[chosen], run_name="__main__", alter_sys=True)
