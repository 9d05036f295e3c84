"""What all jobs of an orchestrator share."""

from dataclasses import dataclass, field

from quatrain.orchestrator.peers.learners import LearnerPool
from quatrain.orchestrator.peers.service_clients import ServiceClients
from quatrain.queue import RolloutQueue
from quatrain.storage import ObjectStore
from quatrain.storage.folders import FolderCache


@dataclass(frozen=True)
class OrchestratorContext:
    """An orchestrator's name in events, and what it works with."""

    name: str
    store: ObjectStore
    queue: RolloutQueue
    services: ServiceClients
    learners: LearnerPool
    folders: FolderCache
    troubles: dict[str, str] = field(default_factory=dict)
    """By job, why its owner here cannot write to its log now: the log cannot say so, the API does."""
