from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JobSpec(_message.Message):
    __slots__ = ("name", "seed", "model", "sft", "reward", "reference", "ppo", "checkpoint", "metadata", "priority", "pool", "limits", "deterministic", "resources")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class ResourcesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SFT_FIELD_NUMBER: _ClassVar[int]
    REWARD_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    PPO_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    DETERMINISTIC_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    name: str
    seed: int
    model: ModelSpec
    sft: SftSpec
    reward: RewardSpec
    reference: ReferenceSpec
    ppo: PpoSpec
    checkpoint: CheckpointSpec
    metadata: _containers.ScalarMap[str, str]
    priority: int
    pool: str
    limits: LimitsSpec
    deterministic: bool
    resources: _containers.ScalarMap[str, str]
    def __init__(self, name: _Optional[str] = ..., seed: _Optional[int] = ..., model: _Optional[_Union[ModelSpec, _Mapping]] = ..., sft: _Optional[_Union[SftSpec, _Mapping]] = ..., reward: _Optional[_Union[RewardSpec, _Mapping]] = ..., reference: _Optional[_Union[ReferenceSpec, _Mapping]] = ..., ppo: _Optional[_Union[PpoSpec, _Mapping]] = ..., checkpoint: _Optional[_Union[CheckpointSpec, _Mapping]] = ..., metadata: _Optional[_Mapping[str, str]] = ..., priority: _Optional[int] = ..., pool: _Optional[str] = ..., limits: _Optional[_Union[LimitsSpec, _Mapping]] = ..., deterministic: bool = ..., resources: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ModelSpec(_message.Message):
    __slots__ = ("uri", "dtype", "base")
    URI_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    uri: str
    dtype: str
    base: str
    def __init__(self, uri: _Optional[str] = ..., dtype: _Optional[str] = ..., base: _Optional[str] = ...) -> None: ...

class DataSpec(_message.Message):
    __slots__ = ("uri", "split", "columns", "format", "more_uris", "names", "label_rule")
    class ColumnsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    URI_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    MORE_URIS_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    LABEL_RULE_FIELD_NUMBER: _ClassVar[int]
    uri: str
    split: str
    columns: _containers.ScalarMap[str, str]
    format: str
    more_uris: _containers.RepeatedScalarFieldContainer[str]
    names: _containers.RepeatedScalarFieldContainer[str]
    label_rule: str
    def __init__(self, uri: _Optional[str] = ..., split: _Optional[str] = ..., columns: _Optional[_Mapping[str, str]] = ..., format: _Optional[str] = ..., more_uris: _Optional[_Iterable[str]] = ..., names: _Optional[_Iterable[str]] = ..., label_rule: _Optional[str] = ...) -> None: ...

class SftSpec(_message.Message):
    __slots__ = ("data", "epochs", "batch_size", "learning_rate", "warmup_ratio", "schedule", "max_length", "weight_decay", "grad_clip", "microbatch_tokens")
    DATA_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    WARMUP_RATIO_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    MAX_LENGTH_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_DECAY_FIELD_NUMBER: _ClassVar[int]
    GRAD_CLIP_FIELD_NUMBER: _ClassVar[int]
    MICROBATCH_TOKENS_FIELD_NUMBER: _ClassVar[int]
    data: DataSpec
    epochs: int
    batch_size: int
    learning_rate: float
    warmup_ratio: float
    schedule: str
    max_length: int
    weight_decay: float
    grad_clip: float
    microbatch_tokens: int
    def __init__(self, data: _Optional[_Union[DataSpec, _Mapping]] = ..., epochs: _Optional[int] = ..., batch_size: _Optional[int] = ..., learning_rate: _Optional[float] = ..., warmup_ratio: _Optional[float] = ..., schedule: _Optional[str] = ..., max_length: _Optional[int] = ..., weight_decay: _Optional[float] = ..., grad_clip: _Optional[float] = ..., microbatch_tokens: _Optional[int] = ...) -> None: ...

class RewardFunctionSpec(_message.Message):
    __slots__ = ("path", "weight", "name", "code_digest", "args", "clip")
    class ArgsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PATH_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CODE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ARGS_FIELD_NUMBER: _ClassVar[int]
    CLIP_FIELD_NUMBER: _ClassVar[int]
    path: str
    weight: float
    name: str
    code_digest: str
    args: _containers.ScalarMap[str, str]
    clip: float
    def __init__(self, path: _Optional[str] = ..., weight: _Optional[float] = ..., name: _Optional[str] = ..., code_digest: _Optional[str] = ..., args: _Optional[_Mapping[str, str]] = ..., clip: _Optional[float] = ...) -> None: ...

class RewardSpec(_message.Message):
    __slots__ = ("data", "model", "functions", "service", "epochs", "batch_size", "learning_rate", "held_out_share", "min_accuracy", "center", "scale", "clip", "max_length", "microbatch_tokens", "grad_clip", "timeout", "center_samples")
    DATA_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FUNCTIONS_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    HELD_OUT_SHARE_FIELD_NUMBER: _ClassVar[int]
    MIN_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    CENTER_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    CLIP_FIELD_NUMBER: _ClassVar[int]
    MAX_LENGTH_FIELD_NUMBER: _ClassVar[int]
    MICROBATCH_TOKENS_FIELD_NUMBER: _ClassVar[int]
    GRAD_CLIP_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    CENTER_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    data: DataSpec
    model: str
    functions: _containers.RepeatedCompositeFieldContainer[RewardFunctionSpec]
    service: str
    epochs: int
    batch_size: int
    learning_rate: float
    held_out_share: float
    min_accuracy: float
    center: bool
    scale: float
    clip: float
    max_length: int
    microbatch_tokens: int
    grad_clip: float
    timeout: float
    center_samples: int
    def __init__(self, data: _Optional[_Union[DataSpec, _Mapping]] = ..., model: _Optional[str] = ..., functions: _Optional[_Iterable[_Union[RewardFunctionSpec, _Mapping]]] = ..., service: _Optional[str] = ..., epochs: _Optional[int] = ..., batch_size: _Optional[int] = ..., learning_rate: _Optional[float] = ..., held_out_share: _Optional[float] = ..., min_accuracy: _Optional[float] = ..., center: bool = ..., scale: _Optional[float] = ..., clip: _Optional[float] = ..., max_length: _Optional[int] = ..., microbatch_tokens: _Optional[int] = ..., grad_clip: _Optional[float] = ..., timeout: _Optional[float] = ..., center_samples: _Optional[int] = ...) -> None: ...

class ReferenceSpec(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class PpoSpec(_message.Message):
    __slots__ = ("prompts", "eval_prompts", "eval_every", "eval_gold", "steps", "prompts_per_step", "samples_per_prompt", "chunk_size", "staleness", "max_prompt_length", "truncate_prompt", "generation", "kl", "advantage", "optimizer", "clip", "entropy_coef", "value_init", "importance_cap", "max_refused_share", "max_skipped_updates")
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    EVAL_PROMPTS_FIELD_NUMBER: _ClassVar[int]
    EVAL_EVERY_FIELD_NUMBER: _ClassVar[int]
    EVAL_GOLD_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_PER_STEP_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_PER_PROMPT_FIELD_NUMBER: _ClassVar[int]
    CHUNK_SIZE_FIELD_NUMBER: _ClassVar[int]
    STALENESS_FIELD_NUMBER: _ClassVar[int]
    MAX_PROMPT_LENGTH_FIELD_NUMBER: _ClassVar[int]
    TRUNCATE_PROMPT_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    KL_FIELD_NUMBER: _ClassVar[int]
    ADVANTAGE_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    CLIP_FIELD_NUMBER: _ClassVar[int]
    ENTROPY_COEF_FIELD_NUMBER: _ClassVar[int]
    VALUE_INIT_FIELD_NUMBER: _ClassVar[int]
    IMPORTANCE_CAP_FIELD_NUMBER: _ClassVar[int]
    MAX_REFUSED_SHARE_FIELD_NUMBER: _ClassVar[int]
    MAX_SKIPPED_UPDATES_FIELD_NUMBER: _ClassVar[int]
    prompts: DataSpec
    eval_prompts: DataSpec
    eval_every: int
    eval_gold: RewardSpec
    steps: int
    prompts_per_step: int
    samples_per_prompt: int
    chunk_size: int
    staleness: int
    max_prompt_length: int
    truncate_prompt: str
    generation: GenerationSpec
    kl: KlSpec
    advantage: AdvantageSpec
    optimizer: OptimizerSpec
    clip: ClipSpec
    entropy_coef: float
    value_init: str
    importance_cap: float
    max_refused_share: float
    max_skipped_updates: int
    def __init__(self, prompts: _Optional[_Union[DataSpec, _Mapping]] = ..., eval_prompts: _Optional[_Union[DataSpec, _Mapping]] = ..., eval_every: _Optional[int] = ..., eval_gold: _Optional[_Union[RewardSpec, _Mapping]] = ..., steps: _Optional[int] = ..., prompts_per_step: _Optional[int] = ..., samples_per_prompt: _Optional[int] = ..., chunk_size: _Optional[int] = ..., staleness: _Optional[int] = ..., max_prompt_length: _Optional[int] = ..., truncate_prompt: _Optional[str] = ..., generation: _Optional[_Union[GenerationSpec, _Mapping]] = ..., kl: _Optional[_Union[KlSpec, _Mapping]] = ..., advantage: _Optional[_Union[AdvantageSpec, _Mapping]] = ..., optimizer: _Optional[_Union[OptimizerSpec, _Mapping]] = ..., clip: _Optional[_Union[ClipSpec, _Mapping]] = ..., entropy_coef: _Optional[float] = ..., value_init: _Optional[str] = ..., importance_cap: _Optional[float] = ..., max_refused_share: _Optional[float] = ..., max_skipped_updates: _Optional[int] = ...) -> None: ...

class GenerationSpec(_message.Message):
    __slots__ = ("max_new_tokens", "temperature", "ignore_eos", "missing_eos_penalty")
    MAX_NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    IGNORE_EOS_FIELD_NUMBER: _ClassVar[int]
    MISSING_EOS_PENALTY_FIELD_NUMBER: _ClassVar[int]
    max_new_tokens: int
    temperature: float
    ignore_eos: bool
    missing_eos_penalty: float
    def __init__(self, max_new_tokens: _Optional[int] = ..., temperature: _Optional[float] = ..., ignore_eos: bool = ..., missing_eos_penalty: _Optional[float] = ...) -> None: ...

class KlSpec(_message.Message):
    __slots__ = ("coef", "placement", "estimator", "controller", "target", "horizon", "acknowledge_rescaled_beta")
    COEF_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    ESTIMATOR_FIELD_NUMBER: _ClassVar[int]
    CONTROLLER_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    HORIZON_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGE_RESCALED_BETA_FIELD_NUMBER: _ClassVar[int]
    coef: float
    placement: str
    estimator: str
    controller: str
    target: float
    horizon: float
    acknowledge_rescaled_beta: bool
    def __init__(self, coef: _Optional[float] = ..., placement: _Optional[str] = ..., estimator: _Optional[str] = ..., controller: _Optional[str] = ..., target: _Optional[float] = ..., horizon: _Optional[float] = ..., acknowledge_rescaled_beta: bool = ...) -> None: ...

class AdvantageSpec(_message.Message):
    __slots__ = ("estimator", "gamma", "lam", "whiten")
    ESTIMATOR_FIELD_NUMBER: _ClassVar[int]
    GAMMA_FIELD_NUMBER: _ClassVar[int]
    LAM_FIELD_NUMBER: _ClassVar[int]
    WHITEN_FIELD_NUMBER: _ClassVar[int]
    estimator: str
    gamma: float
    lam: float
    whiten: bool
    def __init__(self, estimator: _Optional[str] = ..., gamma: _Optional[float] = ..., lam: _Optional[float] = ..., whiten: bool = ...) -> None: ...

class OptimizerSpec(_message.Message):
    __slots__ = ("policy_lr", "value_lr", "schedule", "warmup_steps", "betas", "eps", "weight_decay", "epochs", "minibatches", "microbatch_tokens", "grad_clip", "value_warmup_steps", "target_kl")
    POLICY_LR_FIELD_NUMBER: _ClassVar[int]
    VALUE_LR_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    WARMUP_STEPS_FIELD_NUMBER: _ClassVar[int]
    BETAS_FIELD_NUMBER: _ClassVar[int]
    EPS_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_DECAY_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    MINIBATCHES_FIELD_NUMBER: _ClassVar[int]
    MICROBATCH_TOKENS_FIELD_NUMBER: _ClassVar[int]
    GRAD_CLIP_FIELD_NUMBER: _ClassVar[int]
    VALUE_WARMUP_STEPS_FIELD_NUMBER: _ClassVar[int]
    TARGET_KL_FIELD_NUMBER: _ClassVar[int]
    policy_lr: float
    value_lr: float
    schedule: str
    warmup_steps: int
    betas: _containers.RepeatedScalarFieldContainer[float]
    eps: float
    weight_decay: float
    epochs: int
    minibatches: int
    microbatch_tokens: int
    grad_clip: float
    value_warmup_steps: int
    target_kl: float
    def __init__(self, policy_lr: _Optional[float] = ..., value_lr: _Optional[float] = ..., schedule: _Optional[str] = ..., warmup_steps: _Optional[int] = ..., betas: _Optional[_Iterable[float]] = ..., eps: _Optional[float] = ..., weight_decay: _Optional[float] = ..., epochs: _Optional[int] = ..., minibatches: _Optional[int] = ..., microbatch_tokens: _Optional[int] = ..., grad_clip: _Optional[float] = ..., value_warmup_steps: _Optional[int] = ..., target_kl: _Optional[float] = ...) -> None: ...

class ClipSpec(_message.Message):
    __slots__ = ("low", "high", "value", "dual", "value_off")
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    DUAL_FIELD_NUMBER: _ClassVar[int]
    VALUE_OFF_FIELD_NUMBER: _ClassVar[int]
    low: float
    high: float
    value: float
    dual: float
    value_off: bool
    def __init__(self, low: _Optional[float] = ..., high: _Optional[float] = ..., value: _Optional[float] = ..., dual: _Optional[float] = ..., value_off: bool = ...) -> None: ...

class CheckpointSpec(_message.Message):
    __slots__ = ("every_steps", "keep_last", "keep_every", "keep_best")
    EVERY_STEPS_FIELD_NUMBER: _ClassVar[int]
    KEEP_LAST_FIELD_NUMBER: _ClassVar[int]
    KEEP_EVERY_FIELD_NUMBER: _ClassVar[int]
    KEEP_BEST_FIELD_NUMBER: _ClassVar[int]
    every_steps: int
    keep_last: int
    keep_every: int
    keep_best: str
    def __init__(self, every_steps: _Optional[int] = ..., keep_last: _Optional[int] = ..., keep_every: _Optional[int] = ..., keep_best: _Optional[str] = ...) -> None: ...

class LimitsSpec(_message.Message):
    __slots__ = ("wall_time", "retries", "stage_time")
    WALL_TIME_FIELD_NUMBER: _ClassVar[int]
    RETRIES_FIELD_NUMBER: _ClassVar[int]
    STAGE_TIME_FIELD_NUMBER: _ClassVar[int]
    wall_time: float
    retries: int
    stage_time: float
    def __init__(self, wall_time: _Optional[float] = ..., retries: _Optional[int] = ..., stage_time: _Optional[float] = ...) -> None: ...
