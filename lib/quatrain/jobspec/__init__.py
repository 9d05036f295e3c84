"""The job spec: YAML, JSON or proto in, a validated and fully resolved JobSpec out. Imports no torch.

`sections` holds the fields with bounds and defaults, `rules` what joins several fields. The other modules read and
write specs: `reward_section` is what a job stores of its reward, `stored_spec` opens specs of other versions.

document = apply_overrides(load_yaml(Path("spec.yaml")), ["ppo.kl.coef=0.1"])
spec = parse_spec(document)
"""

from quatrain.jobspec.documents import load_yaml
from quatrain.jobspec.overrides import apply_overrides, split_overrides
from quatrain.jobspec.parsing import parse_spec
from quatrain.jobspec.sections import (
    AdvantageSpec,
    CheckpointSpec,
    ClipSpec,
    DataSpec,
    GenerationSpec,
    JobSpec,
    KlSpec,
    LimitsSpec,
    ModelSpec,
    OptimizerSpec,
    PpoSpec,
    ReferenceSpec,
    RewardFunctionSpec,
    RewardSpec,
    SftSpec,
)
from quatrain.jobspec.wire import resolved_document, spec_from_proto, spec_to_proto

__all__ = [
    "AdvantageSpec",
    "CheckpointSpec",
    "ClipSpec",
    "DataSpec",
    "GenerationSpec",
    "JobSpec",
    "KlSpec",
    "LimitsSpec",
    "ModelSpec",
    "OptimizerSpec",
    "PpoSpec",
    "ReferenceSpec",
    "RewardFunctionSpec",
    "RewardSpec",
    "SftSpec",
    "apply_overrides",
    "load_yaml",
    "parse_spec",
    "resolved_document",
    "spec_from_proto",
    "spec_to_proto",
    "split_overrides",
]
