"""Configuration of a process: one model, and the only package that reads the environment and YAML.

`load_config` merges, from weakest to strongest: defaults, the YAML file that `QUATRAIN_CONFIG` (or `--config`) names,
environment variables `QUATRAIN_SECTION__KEY`, flags `--section.key=value`.
"""

from quatrain.config.folders import ready_folder, temporary_folder
from quatrain.config.loading import LoadedConfig, load_config
from quatrain.config.schema import (
    AuthConfig,
    ComputeConfig,
    GenerationConfig,
    LearnerConfig,
    OrchestratorConfig,
    ProcessConfig,
    QueueConfig,
    ReferenceConfig,
    RewardConfig,
    RolloutConfig,
    ServerConfig,
    SourcesConfig,
    StorageConfig,
    TelemetryConfig,
    TlsConfig,
)

__all__ = [
    "AuthConfig",
    "ComputeConfig",
    "GenerationConfig",
    "LearnerConfig",
    "LoadedConfig",
    "OrchestratorConfig",
    "ProcessConfig",
    "QueueConfig",
    "ReferenceConfig",
    "RewardConfig",
    "RolloutConfig",
    "ServerConfig",
    "SourcesConfig",
    "StorageConfig",
    "TelemetryConfig",
    "TlsConfig",
    "load_config",
    "ready_folder",
    "temporary_folder",
]
