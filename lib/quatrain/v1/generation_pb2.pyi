from quatrain.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SamplingParams(_message.Message):
    __slots__ = ("max_new_tokens", "temperature", "ignore_eos", "eos_token_ids")
    MAX_NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    IGNORE_EOS_FIELD_NUMBER: _ClassVar[int]
    EOS_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    max_new_tokens: int
    temperature: float
    ignore_eos: bool
    eos_token_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, max_new_tokens: _Optional[int] = ..., temperature: _Optional[float] = ..., ignore_eos: bool = ..., eos_token_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class GenerateRequest(_message.Message):
    __slots__ = ("job", "policy", "prompt_ids", "seeds", "sampling", "dtype")
    JOB_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    PROMPT_IDS_FIELD_NUMBER: _ClassVar[int]
    SEEDS_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    job: str
    policy: _common_pb2.ModelRef
    prompt_ids: _common_pb2.RaggedInts
    seeds: _containers.RepeatedScalarFieldContainer[int]
    sampling: SamplingParams
    dtype: str
    def __init__(self, job: _Optional[str] = ..., policy: _Optional[_Union[_common_pb2.ModelRef, _Mapping]] = ..., prompt_ids: _Optional[_Union[_common_pb2.RaggedInts, _Mapping]] = ..., seeds: _Optional[_Iterable[int]] = ..., sampling: _Optional[_Union[SamplingParams, _Mapping]] = ..., dtype: _Optional[str] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("completion_ids", "logprobs", "finish_reasons", "policy", "compute_seconds")
    COMPLETION_IDS_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASONS_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    completion_ids: _common_pb2.RaggedInts
    logprobs: _common_pb2.RaggedFloats
    finish_reasons: _containers.RepeatedScalarFieldContainer[_common_pb2.FinishReason]
    policy: _common_pb2.ModelRef
    compute_seconds: float
    def __init__(self, completion_ids: _Optional[_Union[_common_pb2.RaggedInts, _Mapping]] = ..., logprobs: _Optional[_Union[_common_pb2.RaggedFloats, _Mapping]] = ..., finish_reasons: _Optional[_Iterable[_Union[_common_pb2.FinishReason, str]]] = ..., policy: _Optional[_Union[_common_pb2.ModelRef, _Mapping]] = ..., compute_seconds: _Optional[float] = ...) -> None: ...

class GetGenerationCapabilitiesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetGenerationCapabilitiesResponse(_message.Message):
    __slots__ = ("engine", "exact_logprobs", "device", "job_slots")
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    EXACT_LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    JOB_SLOTS_FIELD_NUMBER: _ClassVar[int]
    engine: str
    exact_logprobs: bool
    device: str
    job_slots: int
    def __init__(self, engine: _Optional[str] = ..., exact_logprobs: bool = ..., device: _Optional[str] = ..., job_slots: _Optional[int] = ...) -> None: ...
