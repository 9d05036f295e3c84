"""The place of a process in its group."""

import os
from dataclasses import dataclass
from typing import Self

from quatrain.config import ProcessConfig
from quatrain.errors import InvalidInput
from quatrain.rpc.addresses import check_address


@dataclass(frozen=True)
class Place:
    """Rank `rank` of `size` ranks, which find each other at `host`:`port`.

    `patience`: seconds that a rank waits for the others in a collective operation; `silence`: seconds without a
    heartbeat after which a rank counts as lost.
    """

    rank: int
    size: int
    host: str
    port: int
    patience: float
    silence: float


def place_of(config: ProcessConfig) -> Place:
    """Return the place that the configuration names. Raises InvalidInput if it names none."""
    learner = config.learner
    if learner.rank >= learner.ranks:
        raise InvalidInput(f"learner.rank is {learner.rank}, but learner.ranks is {learner.ranks}; ranks count from 0.")
    if learner.backend == "fake":
        raise InvalidInput("learner.backend fake has no work for several ranks; set learner.ranks to 1.")
    if not learner.rendezvous:
        raise InvalidInput(f"A learner of {learner.ranks} ranks needs learner.rendezvous, host:port of its rank 0.")
    check_address(learner.rendezvous, "learner.rendezvous")
    host, _, port = learner.rendezvous.rpartition(":")
    return Place(
        learner.rank, learner.ranks, host.strip("[]"), int(port), config.compute.stuck_after, learner.rank_timeout
    )


@dataclass(frozen=True)
class Launcher:
    """What torchrun tells the processes that it starts, besides their rank."""

    serves_rendezvous: bool
    restarts: str
    local_rank: int

    @classmethod
    def here(cls) -> Self:
        """Read the environment."""
        return cls(
            os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
            os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"),
            int(os.environ.get("LOCAL_RANK", "0")),
        )
