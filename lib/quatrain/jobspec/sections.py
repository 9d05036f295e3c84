"""The job spec's sections as pydantic models: field names are the proto's; defaults and bounds are only here.

A section is strict (no string becomes a number) and refuses unknown keys. Rules that join several fields are in
`rules.py`. Defaults that depend on another field are filled in before validation, so that a validated spec has no open
choice left but those that need the model or the data (`model.dtype`, `ppo.value_init`).
"""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    model_validator,
)

from quatrain.jobspec.data_formats import FileFormat, KnownSet, LabelRule
from quatrain.jobspec.function_args import checked_args

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1

Count = Annotated[int, Field(ge=1, le=INT32_MAX)]
CountOrZero = Annotated[int, Field(ge=0, le=INT32_MAX)]
Positive = Annotated[float, Field(gt=0.0)]
PositiveOrZero = Annotated[float, Field(ge=0.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
ShareBelowOne = Annotated[float, Field(ge=0.0, lt=1.0)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Schedule = Literal["cosine", "linear", "constant"]
Strings = Annotated[dict[str, str], Field(max_length=16)]

MAX_FILES = 10_000
"""Files of a data set."""

PAIR_FIELDS = (
    "epochs",
    "batch_size",
    "learning_rate",
    "held_out_share",
    "min_accuracy",
    "max_length",
    "microbatch_tokens",
    "grad_clip",
)
"""Fields of RewardSpec that only mean something when a reward model is trained in this job."""

DATA_SETS = ("sft.data", "reward.data", "ppo.prompts", "ppo.eval_prompts")
"""The fields of a spec that name a data set."""


class Section(BaseModel):
    """Base of all sections: frozen, strict, unknown keys refused, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _uri_to_mapping(value: Any) -> Any:
    """Return the section that a URI alone, or a list of them, stands for; a list in `uri` is divided."""
    if isinstance(value, str | list):
        value = {"uri": value}
    if isinstance(value, dict) and isinstance(value.get("uri"), list) and value["uri"]:
        first, *more = value["uri"]
        return {**value, "uri": first, "more_uris": [*more, *value.get("more_uris", [])]}
    return value


def _list_to_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class ModelSpec(Section):
    """A model and its dtype."""

    uri: Text
    base: Text | None = None
    dtype: Literal["float32", "bfloat16"] | None = None


class DataSpec(Section):
    """A data set; in a document it may be the URI alone."""

    uri: Text
    split: Text | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    format: FileFormat | KnownSet | None = None
    more_uris: Annotated[tuple[Text, ...], BeforeValidator(_list_to_tuple)] = Field(default=(), max_length=MAX_FILES)
    names: Annotated[tuple[Text, ...], BeforeValidator(_list_to_tuple)] = Field(default=(), max_length=MAX_FILES)
    label_rule: LabelRule | None = None

    @property
    def uris(self) -> tuple[str, ...]:
        """Return the URIs of all files, in order."""
        return (self.uri, *self.more_uris)


Data = Annotated[DataSpec, BeforeValidator(_uri_to_mapping)]


class SftSpec(Section):
    """Supervised fine-tuning."""

    data: Data
    epochs: Count = 1
    batch_size: Count = 32
    learning_rate: Positive = 1e-5
    warmup_ratio: Share = 0.03
    schedule: Schedule = "cosine"
    max_length: Annotated[int, Field(ge=2, le=INT32_MAX)] = 1024
    weight_decay: PositiveOrZero = 0.0
    grad_clip: Positive = 1.0
    microbatch_tokens: Count = 1024


class RewardFunctionSpec(Section):
    """A reward function, its weight, and what it is called with besides the samples."""

    path: Annotated[str, StringConstraints(pattern=r"^[^:\s](?:.*[^:])?:[A-Za-z_][A-Za-z0-9_]*$", max_length=4096)]
    weight: float = 1.0
    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,63}$")] | None = None
    code_digest: Digest | None = None
    args: Annotated[dict[str, JsonValue], AfterValidator(checked_args)] = Field(default_factory=dict)
    clip: Positive | None = None

    @property
    def term(self) -> str:
        """Name of the function's term in metrics: `name`, else the function's own name."""
        return self.name or self.path.rpartition(":")[2]


class RewardSpec(Section):
    """The source of scores: exactly one of data, model, functions, service (rules.py)."""

    data: Data | None = None
    model: Text | None = None
    functions: Annotated[tuple[RewardFunctionSpec, ...], BeforeValidator(_list_to_tuple)] = ()
    service: Annotated[str, StringConstraints(pattern=r"^[^\s/:][^\s/]*:[0-9]{1,5}$")] | None = None
    epochs: Count = 1
    batch_size: Count = 32
    learning_rate: Positive = 1e-5
    held_out_share: Annotated[float, Field(ge=0.0, le=0.5)] = 0.05
    min_accuracy: Share = 0.55
    center: bool = False
    center_samples: Count = 512
    scale: float = 1.0
    clip: Positive | None = None
    max_length: Annotated[int, Field(ge=2, le=INT32_MAX)] = 1024
    microbatch_tokens: Count = 1024
    grad_clip: Positive = 1.0
    timeout: Annotated[float, Field(gt=0.0, le=86400.0)] = 60.0

    @model_validator(mode="before")
    @classmethod
    def _center_when_trained_here(cls, document: Any) -> Any:
        if isinstance(document, dict) and document.get("center") is None:
            return {**document, "center": document.get("data") is not None}
        return document


class ReferenceSpec(Section):
    """The frozen reference model."""

    model: Text | None = None


class GenerationSpec(Section):
    """Sampling of completions."""

    max_new_tokens: Count = 128
    temperature: Positive = 1.0
    ignore_eos: bool = False
    missing_eos_penalty: PositiveOrZero = 1.0

    @model_validator(mode="before")
    @classmethod
    def _no_penalty_without_end(cls, document: Any) -> Any:
        if isinstance(document, dict) and document.get("missing_eos_penalty") is None:
            return {**document, "missing_eos_penalty": 0.0 if document.get("ignore_eos") is True else 1.0}
        return document


class KlSpec(Section):
    """KL penalty."""

    coef: PositiveOrZero = 0.05
    placement: Literal["reward", "loss"] = "reward"
    estimator: Literal["k1", "k2", "k3"] = "k1"
    controller: Literal["fixed", "adaptive"] = "fixed"
    target: Positive | None = None
    horizon: Positive = 10000.0
    acknowledge_rescaled_beta: bool = False

    @model_validator(mode="before")
    @classmethod
    def _estimator_of_placement(cls, document: Any) -> Any:
        if isinstance(document, dict) and document.get("estimator") is None:
            return {**document, "estimator": "k2" if document.get("placement") == "loss" else "k1"}
        return document


class AdvantageSpec(Section):
    """Advantage estimation."""

    estimator: Literal["gae"] = "gae"
    gamma: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    lam: Share = 0.95
    whiten: bool = True


class OptimizerSpec(Section):
    """Optimizers of policy and value model."""

    policy_lr: PositiveOrZero = 1e-6
    value_lr: PositiveOrZero = 1e-5
    schedule: Schedule = "linear"
    warmup_steps: CountOrZero = 0
    betas: Annotated[tuple[ShareBelowOne, ShareBelowOne], BeforeValidator(_list_to_tuple)] = (0.9, 0.999)
    eps: Positive = 1e-5
    weight_decay: PositiveOrZero = 0.0
    epochs: Count = 4
    minibatches: Count = 1
    microbatch_tokens: Count = 1024
    grad_clip: Positive = 1.0
    value_warmup_steps: CountOrZero = 0
    target_kl: Positive | None = None


class ClipSpec(Section):
    """Clip ranges; `value: null` turns the value clip off."""

    low: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    high: Positive = 0.2
    value: Positive | None = 0.2
    dual: Annotated[float, Field(gt=1.0)] | None = None


class PpoSpec(Section):
    """The PPO stage."""

    prompts: Data
    eval_prompts: Data | None = None
    eval_every: Count = 20
    eval_gold: RewardSpec | None = None
    steps: Count
    prompts_per_step: Count = 64
    samples_per_prompt: Count = 1
    chunk_size: Count = 16
    staleness: CountOrZero = 0
    max_prompt_length: Count = 512
    truncate_prompt: Literal["refuse", "left"] = "refuse"
    generation: GenerationSpec = Field(default_factory=lambda: GenerationSpec())
    kl: KlSpec = Field(default_factory=lambda: KlSpec())
    advantage: AdvantageSpec = Field(default_factory=lambda: AdvantageSpec())
    optimizer: OptimizerSpec = Field(default_factory=lambda: OptimizerSpec())
    clip: ClipSpec = Field(default_factory=lambda: ClipSpec())
    entropy_coef: PositiveOrZero = 0.0
    value_init: Literal["reward", "sft"] | None = None
    importance_cap: Positive = 2.0
    max_refused_share: Share = 0.1
    max_skipped_updates: CountOrZero = 5

    @property
    def sequences_per_step(self) -> int:
        """Completions of one step."""
        return self.prompts_per_step * self.samples_per_prompt


class CheckpointSpec(Section):
    """Checkpoints."""

    every_steps: Count = 20
    keep_last: Count = 3
    keep_every: Count | None = None
    keep_best: Text | None = None


class LimitsSpec(Section):
    """Bounds of the whole job."""

    wall_time: Positive | None = None
    retries: CountOrZero = 5
    stage_time: Positive | None = None


class JobSpec(Section):
    """A whole job: SFT, reward model and PPO."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,63}$")]
    seed: Annotated[int, Field(ge=0, le=INT64_MAX)] = 1
    model: ModelSpec
    sft: SftSpec | None = None
    reward: RewardSpec
    reference: ReferenceSpec = Field(default_factory=lambda: ReferenceSpec())
    ppo: PpoSpec
    checkpoint: CheckpointSpec = Field(default_factory=lambda: CheckpointSpec())
    metadata: Strings = Field(default_factory=dict)
    priority: Annotated[int, Field(ge=-INT32_MAX, le=INT32_MAX)] = 0
    pool: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")] = "default"
    limits: LimitsSpec = Field(default_factory=lambda: LimitsSpec())
    deterministic: bool = False
    resources: Strings = Field(default_factory=dict)
