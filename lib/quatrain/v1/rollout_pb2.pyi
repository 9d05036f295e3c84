from quatrain.v1 import common_pb2 as _common_pb2
from quatrain.v1 import generation_pb2 as _generation_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Purpose(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PURPOSE_UNSPECIFIED: _ClassVar[Purpose]
    PURPOSE_ROLLOUT: _ClassVar[Purpose]
    PURPOSE_EVAL: _ClassVar[Purpose]
    PURPOSE_OFFSET: _ClassVar[Purpose]
PURPOSE_UNSPECIFIED: Purpose
PURPOSE_ROLLOUT: Purpose
PURPOSE_EVAL: Purpose
PURPOSE_OFFSET: Purpose

class TaskRow(_message.Message):
    __slots__ = ("rollout_id", "prompt_index", "sample_index", "seed")
    ROLLOUT_ID_FIELD_NUMBER: _ClassVar[int]
    PROMPT_INDEX_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_INDEX_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    rollout_id: str
    prompt_index: int
    sample_index: int
    seed: int
    def __init__(self, rollout_id: _Optional[str] = ..., prompt_index: _Optional[int] = ..., sample_index: _Optional[int] = ..., seed: _Optional[int] = ...) -> None: ...

class Scoring(_message.Message):
    __slots__ = ("name", "reward_json", "missing_eos_penalty")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REWARD_JSON_FIELD_NUMBER: _ClassVar[int]
    MISSING_EOS_PENALTY_FIELD_NUMBER: _ClassVar[int]
    name: str
    reward_json: str
    missing_eos_penalty: float
    def __init__(self, name: _Optional[str] = ..., reward_json: _Optional[str] = ..., missing_eos_penalty: _Optional[float] = ...) -> None: ...

class RolloutTask(_message.Message):
    __slots__ = ("job", "purpose", "step", "chunk", "epoch", "nonce", "policy", "sampling", "dtype", "prompts", "rows", "reference", "scorings", "trainer_state_json", "tokenizer", "deadline_seconds")
    JOB_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    SCORINGS_FIELD_NUMBER: _ClassVar[int]
    TRAINER_STATE_JSON_FIELD_NUMBER: _ClassVar[int]
    TOKENIZER_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    job: str
    purpose: Purpose
    step: int
    chunk: int
    epoch: int
    nonce: str
    policy: _common_pb2.ModelRef
    sampling: _generation_pb2.SamplingParams
    dtype: str
    prompts: _common_pb2.ObjectRef
    rows: _containers.RepeatedCompositeFieldContainer[TaskRow]
    reference: _common_pb2.ModelRef
    scorings: _containers.RepeatedCompositeFieldContainer[Scoring]
    trainer_state_json: str
    tokenizer: _common_pb2.ModelRef
    deadline_seconds: float
    def __init__(self, job: _Optional[str] = ..., purpose: _Optional[_Union[Purpose, str]] = ..., step: _Optional[int] = ..., chunk: _Optional[int] = ..., epoch: _Optional[int] = ..., nonce: _Optional[str] = ..., policy: _Optional[_Union[_common_pb2.ModelRef, _Mapping]] = ..., sampling: _Optional[_Union[_generation_pb2.SamplingParams, _Mapping]] = ..., dtype: _Optional[str] = ..., prompts: _Optional[_Union[_common_pb2.ObjectRef, _Mapping]] = ..., rows: _Optional[_Iterable[_Union[TaskRow, _Mapping]]] = ..., reference: _Optional[_Union[_common_pb2.ModelRef, _Mapping]] = ..., scorings: _Optional[_Iterable[_Union[Scoring, _Mapping]]] = ..., trainer_state_json: _Optional[str] = ..., tokenizer: _Optional[_Union[_common_pb2.ModelRef, _Mapping]] = ..., deadline_seconds: _Optional[float] = ...) -> None: ...

class ScoreOutcome(_message.Message):
    __slots__ = ("name", "status", "reason", "score", "terms", "logged_json")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    LOGGED_JSON_FIELD_NUMBER: _ClassVar[int]
    name: str
    status: str
    reason: str
    score: float
    terms: _containers.RepeatedCompositeFieldContainer[_common_pb2.NamedValue]
    logged_json: str
    def __init__(self, name: _Optional[str] = ..., status: _Optional[str] = ..., reason: _Optional[str] = ..., score: _Optional[float] = ..., terms: _Optional[_Iterable[_Union[_common_pb2.NamedValue, _Mapping]]] = ..., logged_json: _Optional[str] = ...) -> None: ...

class RolloutResult(_message.Message):
    __slots__ = ("job", "purpose", "step", "chunk", "row", "policy", "completion_ids", "logprobs", "ref_logprobs", "finish_reason", "scores", "reward_metrics", "generate_seconds", "score_seconds", "reference_seconds", "error_reason", "error_message", "made_by", "object")
    JOB_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    ROW_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_IDS_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    REF_LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    REWARD_METRICS_FIELD_NUMBER: _ClassVar[int]
    GENERATE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SCORE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ERROR_REASON_FIELD_NUMBER: _ClassVar[int]
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    MADE_BY_FIELD_NUMBER: _ClassVar[int]
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    job: str
    purpose: Purpose
    step: int
    chunk: int
    row: TaskRow
    policy: _common_pb2.ModelRef
    completion_ids: bytes
    logprobs: bytes
    ref_logprobs: bytes
    finish_reason: _common_pb2.FinishReason
    scores: _containers.RepeatedCompositeFieldContainer[ScoreOutcome]
    reward_metrics: _containers.RepeatedCompositeFieldContainer[_common_pb2.NamedValue]
    generate_seconds: float
    score_seconds: float
    reference_seconds: float
    error_reason: str
    error_message: str
    made_by: str
    object: _common_pb2.ObjectRef
    def __init__(self, job: _Optional[str] = ..., purpose: _Optional[_Union[Purpose, str]] = ..., step: _Optional[int] = ..., chunk: _Optional[int] = ..., row: _Optional[_Union[TaskRow, _Mapping]] = ..., policy: _Optional[_Union[_common_pb2.ModelRef, _Mapping]] = ..., completion_ids: _Optional[bytes] = ..., logprobs: _Optional[bytes] = ..., ref_logprobs: _Optional[bytes] = ..., finish_reason: _Optional[_Union[_common_pb2.FinishReason, str]] = ..., scores: _Optional[_Iterable[_Union[ScoreOutcome, _Mapping]]] = ..., reward_metrics: _Optional[_Iterable[_Union[_common_pb2.NamedValue, _Mapping]]] = ..., generate_seconds: _Optional[float] = ..., score_seconds: _Optional[float] = ..., reference_seconds: _Optional[float] = ..., error_reason: _Optional[str] = ..., error_message: _Optional[str] = ..., made_by: _Optional[str] = ..., object: _Optional[_Union[_common_pb2.ObjectRef, _Mapping]] = ...) -> None: ...
