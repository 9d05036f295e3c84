"""Waits that are seconds in a deployment are hundredths of a second here."""

from importlib import import_module

import pytest

QUICK = {
    "rollout.collector": {"READ_BLOCK_SECONDS": 0.05, "SENTINEL_SECONDS": 0.05, "QUEUE_RETRY_SECONDS": 0.05},
    "ownership.owner": {
        "HOLD_SECONDS": 0.1,
        "HOLD_TTL_SECONDS": 0.6,
        "STORE_RETRY_SECONDS": 0.05,
        "RECOVERY_SECONDS": 0.01,
    },
    "ownership.intents": {"POLL_SECONDS": 0.05, "RETRY_SECONDS": 0.05},
    "job.run": {"STORE_RETRY_SECONDS": 0.05, "PEER_RETRY_SECONDS": 0.05},
    "stages.training": {"LEARNER_WAIT_SECONDS": 0.05},
    "rollout.worker": {"LEASE_BLOCK_SECONDS": 0.1, "RETRY_SECONDS": 0.02, "QUEUE_RETRY_SECONDS": 0.05},
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, constants in QUICK.items():
        loaded = import_module(f"quatrain.orchestrator.{module}")
        for name, value in constants.items():
            monkeypatch.setattr(loaded, name, value)
