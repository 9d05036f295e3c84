from quatrain.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ScoreSample(_message.Message):
    __slots__ = ("prompt_ids", "completion_ids", "prompt_json", "finish_reason", "extra_json", "completion")
    PROMPT_IDS_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_IDS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_JSON_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    EXTRA_JSON_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_FIELD_NUMBER: _ClassVar[int]
    prompt_ids: _containers.RepeatedScalarFieldContainer[int]
    completion_ids: _containers.RepeatedScalarFieldContainer[int]
    prompt_json: str
    finish_reason: _common_pb2.FinishReason
    extra_json: str
    completion: str
    def __init__(self, prompt_ids: _Optional[_Iterable[int]] = ..., completion_ids: _Optional[_Iterable[int]] = ..., prompt_json: _Optional[str] = ..., finish_reason: _Optional[_Union[_common_pb2.FinishReason, str]] = ..., extra_json: _Optional[str] = ..., completion: _Optional[str] = ...) -> None: ...

class ScoreRequest(_message.Message):
    __slots__ = ("job", "samples", "reward_json", "missing_eos_penalty", "trainer_state_json", "tokenizer")
    JOB_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    REWARD_JSON_FIELD_NUMBER: _ClassVar[int]
    MISSING_EOS_PENALTY_FIELD_NUMBER: _ClassVar[int]
    TRAINER_STATE_JSON_FIELD_NUMBER: _ClassVar[int]
    TOKENIZER_FIELD_NUMBER: _ClassVar[int]
    job: str
    samples: _containers.RepeatedCompositeFieldContainer[ScoreSample]
    reward_json: str
    missing_eos_penalty: float
    trainer_state_json: str
    tokenizer: _common_pb2.ModelRef
    def __init__(self, job: _Optional[str] = ..., samples: _Optional[_Iterable[_Union[ScoreSample, _Mapping]]] = ..., reward_json: _Optional[str] = ..., missing_eos_penalty: _Optional[float] = ..., trainer_state_json: _Optional[str] = ..., tokenizer: _Optional[_Union[_common_pb2.ModelRef, _Mapping]] = ...) -> None: ...

class SampleScore(_message.Message):
    __slots__ = ("outcome", "score", "terms", "reason", "logged_json")
    class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OUTCOME_UNSPECIFIED: _ClassVar[SampleScore.Outcome]
        OUTCOME_SCORED: _ClassVar[SampleScore.Outcome]
        OUTCOME_SKIPPED: _ClassVar[SampleScore.Outcome]
        OUTCOME_REFUSED: _ClassVar[SampleScore.Outcome]
    OUTCOME_UNSPECIFIED: SampleScore.Outcome
    OUTCOME_SCORED: SampleScore.Outcome
    OUTCOME_SKIPPED: SampleScore.Outcome
    OUTCOME_REFUSED: SampleScore.Outcome
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    LOGGED_JSON_FIELD_NUMBER: _ClassVar[int]
    outcome: SampleScore.Outcome
    score: float
    terms: _containers.RepeatedCompositeFieldContainer[_common_pb2.NamedValue]
    reason: str
    logged_json: str
    def __init__(self, outcome: _Optional[_Union[SampleScore.Outcome, str]] = ..., score: _Optional[float] = ..., terms: _Optional[_Iterable[_Union[_common_pb2.NamedValue, _Mapping]]] = ..., reason: _Optional[str] = ..., logged_json: _Optional[str] = ...) -> None: ...

class ScoreResponse(_message.Message):
    __slots__ = ("scores", "metrics", "reward_version", "compute_seconds")
    SCORES_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    REWARD_VERSION_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    scores: _containers.RepeatedCompositeFieldContainer[SampleScore]
    metrics: _containers.RepeatedCompositeFieldContainer[_common_pb2.NamedValue]
    reward_version: str
    compute_seconds: float
    def __init__(self, scores: _Optional[_Iterable[_Union[SampleScore, _Mapping]]] = ..., metrics: _Optional[_Iterable[_Union[_common_pb2.NamedValue, _Mapping]]] = ..., reward_version: _Optional[str] = ..., compute_seconds: _Optional[float] = ...) -> None: ...
