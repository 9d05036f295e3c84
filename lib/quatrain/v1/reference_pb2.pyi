from quatrain.v1 import common_pb2 as _common_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ComputeReferenceLogprobsRequest(_message.Message):
    __slots__ = ("job", "model", "prompt_ids", "completion_ids", "temperature", "dtype")
    JOB_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PROMPT_IDS_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_IDS_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    job: str
    model: _common_pb2.ModelRef
    prompt_ids: _common_pb2.RaggedInts
    completion_ids: _common_pb2.RaggedInts
    temperature: float
    dtype: str
    def __init__(self, job: _Optional[str] = ..., model: _Optional[_Union[_common_pb2.ModelRef, _Mapping]] = ..., prompt_ids: _Optional[_Union[_common_pb2.RaggedInts, _Mapping]] = ..., completion_ids: _Optional[_Union[_common_pb2.RaggedInts, _Mapping]] = ..., temperature: _Optional[float] = ..., dtype: _Optional[str] = ...) -> None: ...

class ComputeReferenceLogprobsResponse(_message.Message):
    __slots__ = ("logprobs", "model", "compute_seconds")
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    logprobs: _common_pb2.RaggedFloats
    model: _common_pb2.ModelRef
    compute_seconds: float
    def __init__(self, logprobs: _Optional[_Union[_common_pb2.RaggedFloats, _Mapping]] = ..., model: _Optional[_Union[_common_pb2.ModelRef, _Mapping]] = ..., compute_seconds: _Optional[float] = ...) -> None: ...
