from quatrain.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Stage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STAGE_UNSPECIFIED: _ClassVar[Stage]
    STAGE_SFT: _ClassVar[Stage]
    STAGE_REWARD: _ClassVar[Stage]
    STAGE_PPO: _ClassVar[Stage]
STAGE_UNSPECIFIED: Stage
STAGE_SFT: Stage
STAGE_REWARD: Stage
STAGE_PPO: Stage

class OpenRequest(_message.Message):
    __slots__ = ("token", "stage", "config_json", "model", "value_model", "value_scale", "value_offset", "data", "held_out", "total_steps", "seed", "dtype", "deterministic", "checkpoint", "tokenizer", "exact_logprobs", "temperature")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    CONFIG_JSON_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VALUE_MODEL_FIELD_NUMBER: _ClassVar[int]
    VALUE_SCALE_FIELD_NUMBER: _ClassVar[int]
    VALUE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    HELD_OUT_FIELD_NUMBER: _ClassVar[int]
    TOTAL_STEPS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    DETERMINISTIC_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    TOKENIZER_FIELD_NUMBER: _ClassVar[int]
    EXACT_LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    token: _common_pb2.OwnerToken
    stage: Stage
    config_json: str
    model: _common_pb2.ModelRef
    value_model: _common_pb2.ModelRef
    value_scale: float
    value_offset: float
    data: _common_pb2.ObjectRef
    held_out: _common_pb2.ObjectRef
    total_steps: int
    seed: int
    dtype: str
    deterministic: bool
    checkpoint: _common_pb2.ObjectRef
    tokenizer: _common_pb2.ModelRef
    exact_logprobs: bool
    temperature: float
    def __init__(self, token: _Optional[_Union[_common_pb2.OwnerToken, _Mapping]] = ..., stage: _Optional[_Union[Stage, str]] = ..., config_json: _Optional[str] = ..., model: _Optional[_Union[_common_pb2.ModelRef, _Mapping]] = ..., value_model: _Optional[_Union[_common_pb2.ModelRef, _Mapping]] = ..., value_scale: _Optional[float] = ..., value_offset: _Optional[float] = ..., data: _Optional[_Union[_common_pb2.ObjectRef, _Mapping]] = ..., held_out: _Optional[_Union[_common_pb2.ObjectRef, _Mapping]] = ..., total_steps: _Optional[int] = ..., seed: _Optional[int] = ..., dtype: _Optional[str] = ..., deterministic: bool = ..., checkpoint: _Optional[_Union[_common_pb2.ObjectRef, _Mapping]] = ..., tokenizer: _Optional[_Union[_common_pb2.ModelRef, _Mapping]] = ..., exact_logprobs: bool = ..., temperature: _Optional[float] = ...) -> None: ...

class OpenResponse(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: GetStatusResponse
    def __init__(self, status: _Optional[_Union[GetStatusResponse, _Mapping]] = ...) -> None: ...

class ComputePolicyLogprobsRequest(_message.Message):
    __slots__ = ("token", "prompt_ids", "completion_ids", "temperature")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    PROMPT_IDS_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_IDS_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    token: _common_pb2.OwnerToken
    prompt_ids: _common_pb2.RaggedInts
    completion_ids: _common_pb2.RaggedInts
    temperature: float
    def __init__(self, token: _Optional[_Union[_common_pb2.OwnerToken, _Mapping]] = ..., prompt_ids: _Optional[_Union[_common_pb2.RaggedInts, _Mapping]] = ..., completion_ids: _Optional[_Union[_common_pb2.RaggedInts, _Mapping]] = ..., temperature: _Optional[float] = ...) -> None: ...

class ComputePolicyLogprobsResponse(_message.Message):
    __slots__ = ("logprobs", "policy_version")
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    logprobs: _common_pb2.RaggedFloats
    policy_version: int
    def __init__(self, logprobs: _Optional[_Union[_common_pb2.RaggedFloats, _Mapping]] = ..., policy_version: _Optional[int] = ...) -> None: ...

class StepRequest(_message.Message):
    __slots__ = ("token", "step", "batch")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    token: _common_pb2.OwnerToken
    step: int
    batch: _common_pb2.ObjectRef
    def __init__(self, token: _Optional[_Union[_common_pb2.OwnerToken, _Mapping]] = ..., step: _Optional[int] = ..., batch: _Optional[_Union[_common_pb2.ObjectRef, _Mapping]] = ...) -> None: ...

class StepResponse(_message.Message):
    __slots__ = ("heartbeat", "result")
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    heartbeat: Heartbeat
    result: StepResult
    def __init__(self, heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., result: _Optional[_Union[StepResult, _Mapping]] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("phase", "elapsed_seconds")
    PHASE_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    phase: str
    elapsed_seconds: float
    def __init__(self, phase: _Optional[str] = ..., elapsed_seconds: _Optional[float] = ...) -> None: ...

class StepResult(_message.Message):
    __slots__ = ("step", "metrics", "tokens", "compute_seconds")
    STEP_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    step: int
    metrics: _containers.RepeatedCompositeFieldContainer[_common_pb2.NamedValue]
    tokens: _common_pb2.ObjectRef
    compute_seconds: float
    def __init__(self, step: _Optional[int] = ..., metrics: _Optional[_Iterable[_Union[_common_pb2.NamedValue, _Mapping]]] = ..., tokens: _Optional[_Union[_common_pb2.ObjectRef, _Mapping]] = ..., compute_seconds: _Optional[float] = ...) -> None: ...

class PublishRequest(_message.Message):
    __slots__ = ("token", "step")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    token: _common_pb2.OwnerToken
    step: int
    def __init__(self, token: _Optional[_Union[_common_pb2.OwnerToken, _Mapping]] = ..., step: _Optional[int] = ...) -> None: ...

class PublishResponse(_message.Message):
    __slots__ = ("heartbeat", "model")
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    heartbeat: Heartbeat
    model: _common_pb2.ModelRef
    def __init__(self, heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., model: _Optional[_Union[_common_pb2.ModelRef, _Mapping]] = ...) -> None: ...

class SaveRequest(_message.Message):
    __slots__ = ("token", "step")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    token: _common_pb2.OwnerToken
    step: int
    def __init__(self, token: _Optional[_Union[_common_pb2.OwnerToken, _Mapping]] = ..., step: _Optional[int] = ...) -> None: ...

class SaveResponse(_message.Message):
    __slots__ = ("heartbeat", "manifest")
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    heartbeat: Heartbeat
    manifest: _common_pb2.ObjectRef
    def __init__(self, heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., manifest: _Optional[_Union[_common_pb2.ObjectRef, _Mapping]] = ...) -> None: ...

class ExportRequest(_message.Message):
    __slots__ = ("token", "extra_files")
    class ExtraFilesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    EXTRA_FILES_FIELD_NUMBER: _ClassVar[int]
    token: _common_pb2.OwnerToken
    extra_files: _containers.ScalarMap[str, bytes]
    def __init__(self, token: _Optional[_Union[_common_pb2.OwnerToken, _Mapping]] = ..., extra_files: _Optional[_Mapping[str, bytes]] = ...) -> None: ...

class ExportResponse(_message.Message):
    __slots__ = ("heartbeat", "exported")
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    EXPORTED_FIELD_NUMBER: _ClassVar[int]
    heartbeat: Heartbeat
    exported: ExportedModel
    def __init__(self, heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., exported: _Optional[_Union[ExportedModel, _Mapping]] = ...) -> None: ...

class ExportedModel(_message.Message):
    __slots__ = ("model", "weights_sha256")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_SHA256_FIELD_NUMBER: _ClassVar[int]
    model: _common_pb2.ModelRef
    weights_sha256: str
    def __init__(self, model: _Optional[_Union[_common_pb2.ModelRef, _Mapping]] = ..., weights_sha256: _Optional[str] = ...) -> None: ...

class CloseRequest(_message.Message):
    __slots__ = ("token",)
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: _common_pb2.OwnerToken
    def __init__(self, token: _Optional[_Union[_common_pb2.OwnerToken, _Mapping]] = ...) -> None: ...

class CloseResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ("token",)
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: _common_pb2.OwnerToken
    def __init__(self, token: _Optional[_Union[_common_pb2.OwnerToken, _Mapping]] = ...) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("learner_id", "token", "stage", "step", "policy_version", "running_step", "device")
    LEARNER_ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    RUNNING_STEP_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    learner_id: str
    token: _common_pb2.OwnerToken
    stage: Stage
    step: int
    policy_version: int
    running_step: int
    device: str
    def __init__(self, learner_id: _Optional[str] = ..., token: _Optional[_Union[_common_pb2.OwnerToken, _Mapping]] = ..., stage: _Optional[_Union[Stage, str]] = ..., step: _Optional[int] = ..., policy_version: _Optional[int] = ..., running_step: _Optional[int] = ..., device: _Optional[str] = ...) -> None: ...
