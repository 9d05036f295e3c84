"""`python -m tests.chaos.fakes KIND`: the process that serves KIND, with everything real but what computes.

The fakes agree on logprobs (all say -1), so that the probe before the first step passes, and none imports torch, so
that a killed process is back soon. Each kind imports its own only, for the same reason.
"""

import runpy
import sys
from types import ModuleType
from typing import Any

from quatrain.local.layout import MODULES


def _fake_engine() -> None:
    from tests.integration.orchestrator.fakes import AgreeingEngine

    from quatrain.generation import engines
    from quatrain.generation.engines import fake

    fake.FakeEngine = AgreeingEngine  # type: ignore[misc]
    engines.make_engine = fake.make


def _fake_reward_models() -> None:
    from quatrain.reward.backends import models
    from quatrain.reward.backends.fake import FakeBackend

    def make_backend(*_: Any, **__: Any) -> FakeBackend:
        return FakeBackend()

    models.ModelBackend = make_backend  # type: ignore[assignment,misc]


def _fake_reference() -> None:
    from tests.integration.orchestrator.fakes import AgreeingReference

    def make_backend(*_: Any, queue_size: int, stuck_after: float, **__: Any) -> AgreeingReference:
        return AgreeingReference(queue_size=queue_size, stuck_after=stuck_after)

    transformers = ModuleType("quatrain.reference.backends.transformers")
    transformers.TransformersBackend = make_backend  # type: ignore[attr-defined]
    sys.modules[transformers.__name__] = transformers


REPLACEMENTS = {"generation": _fake_engine, "reward": _fake_reward_models, "reference": _fake_reference}
"""What puts a fake in the place of whatever would load a model; a learner has `learner.backend=fake`."""

if __name__ == "__main__":
    chosen = sys.argv.pop(1)
    if chosen in REPLACEMENTS:
        REPLACEMENTS[chosen]()
    runpy.run_module(MODULES[chosen], run_name="__main__", alter_sys=True)
