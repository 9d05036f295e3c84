"""Tasks and results as bytes of the queue. The only place that knows their messages."""

import numpy as np
from google.protobuf.message import DecodeError

from quatrain.errors import Corrupt
from quatrain.orchestrator.peers.service_clients import (
    FINISH_REASON_NUMBERS,
    FINISH_REASONS,
    Outcome,
    Sampling,
    from_named_values,
    to_named_values,
)
from quatrain.orchestrator.rollout.samples import (
    ChunkWork,
    ExpectedSample,
    Failed,
    Floats,
    Ints,
    Made,
    Place,
    Purpose,
    Result,
    Rollout,
    RolloutTask,
    ScoreOutcome,
    Scoring,
    Stored,
)
from quatrain.refs import ModelRef, ObjectRef
from quatrain.v1 import rollout_pb2

_PURPOSES: dict[Purpose, rollout_pb2.Purpose] = {
    "rollout": rollout_pb2.PURPOSE_ROLLOUT,
    "eval": rollout_pb2.PURPOSE_EVAL,
    "offset": rollout_pb2.PURPOSE_OFFSET,
}
_PURPOSE_NAMES: dict[int, Purpose] = {number: name for name, number in _PURPOSES.items()}
_OUTCOMES: dict[str, Outcome] = {"rollout": "rollout", "skipped": "skipped", "refused": "refused"}


def encode_task(task: RolloutTask) -> bytes:
    """Return the bytes of a task."""
    message = rollout_pb2.RolloutTask(
        job=task.job,
        purpose=_PURPOSES[task.purpose],
        step=task.step,
        chunk=task.chunk,
        epoch=task.epoch,
        nonce=task.nonce,
        policy=task.policy.to_proto(),
        sampling=task.sampling.to_proto(),
        dtype=task.dtype,
        prompts=task.prompts.to_proto(),
        rows=[_row(sample) for sample in task.samples],
        reference=None if task.reference is None else task.reference.to_proto(),
        scorings=[
            rollout_pb2.Scoring(
                name=each.name, reward_json=each.reward_json, missing_eos_penalty=each.missing_eos_penalty
            )
            for each in task.scorings
        ],
        trainer_state_json=task.trainer_state_json,
        tokenizer=task.tokenizer.to_proto(),
        deadline_seconds=task.deadline_seconds,
    )
    return message.SerializeToString()


def decode_task(data: bytes) -> RolloutTask:
    """Return the task of these bytes. Raises Corrupt when they are none."""
    try:
        message = rollout_pb2.RolloutTask.FromString(data)
    except DecodeError as error:
        raise Corrupt("an entry of the queue is no task") from error
    return RolloutTask(
        job=message.job,
        purpose=_purpose(message.purpose),
        step=message.step,
        chunk=message.chunk,
        epoch=message.epoch,
        nonce=message.nonce,
        policy=ModelRef.from_proto(message.policy),
        sampling=Sampling.from_proto(message.sampling),
        dtype=message.dtype,
        prompts=ObjectRef.from_proto(message.prompts),
        samples=tuple(map(_sample, message.rows)),
        reference=ModelRef.from_proto(message.reference) if message.HasField("reference") else None,
        scorings=tuple(Scoring(each.name, each.reward_json, each.missing_eos_penalty) for each in message.scorings),
        trainer_state_json=message.trainer_state_json,
        tokenizer=ModelRef.from_proto(message.tokenizer),
        deadline_seconds=message.deadline_seconds,
    )


def encode_result(result: Result) -> bytes:
    """Return the bytes of a result."""
    place = result.place
    message = rollout_pb2.RolloutResult(
        job=place.job,
        purpose=_PURPOSES[place.purpose],
        step=place.step,
        chunk=place.chunk,
        policy=place.policy.to_proto(),
        made_by=result.work.made_by if isinstance(result, Made) else result.made_by,
    )
    if isinstance(result, Failed):
        message.error_reason, message.error_message = result.reason, result.message
    elif isinstance(result, Stored):
        message.row.CopyFrom(_row(result.sample))
        message.object.CopyFrom(result.object.to_proto())
    else:
        _fill(message, result)
    return message.SerializeToString()


def decode_result(data: bytes) -> Result:
    """Return the result of these bytes. Raises Corrupt when they are none."""
    try:
        message = rollout_pb2.RolloutResult.FromString(data)
    except DecodeError as error:
        raise Corrupt("the bytes are no rollout result") from error
    place = Place(
        job=message.job,
        purpose=_purpose(message.purpose),
        step=message.step,
        chunk=message.chunk,
        policy=ModelRef.from_proto(message.policy),
    )
    if message.error_reason:
        return Failed(place, message.error_reason, message.error_message, message.made_by)
    if not message.HasField("row"):
        raise Corrupt("a rollout result names no sample")
    if message.HasField("object"):
        return Stored(place, _sample(message.row), ObjectRef.from_proto(message.object), message.made_by)
    rollout = Rollout(
        sample=_sample(message.row),
        policy=place.policy,
        completion_ids=_ints(message.completion_ids),
        logprobs=_floats(message.logprobs),
        ref_logprobs=_floats(message.ref_logprobs),
        finish_reason=FINISH_REASONS.get(message.finish_reason, ""),
        scores=tuple(map(_outcome, message.scores)),
    )
    work = ChunkWork(
        generate_seconds=message.generate_seconds,
        score_seconds=message.score_seconds,
        reference_seconds=message.reference_seconds,
        reward_metrics=from_named_values(message.reward_metrics),
        made_by=message.made_by,
    )
    return Made(place, rollout, work)


def _fill(message: rollout_pb2.RolloutResult, result: Made) -> None:
    rollout, work = result.rollout, result.work
    message.row.CopyFrom(_row(rollout.sample))
    message.completion_ids = rollout.completion_ids.astype("<i4").tobytes()
    message.logprobs = rollout.logprobs.astype("<f4").tobytes()
    message.ref_logprobs = rollout.ref_logprobs.astype("<f4").tobytes()
    if rollout.finish_reason:
        message.finish_reason = FINISH_REASON_NUMBERS[rollout.finish_reason]
    for outcome in rollout.scores:
        message.scores.add(
            name=outcome.name,
            status=outcome.outcome,
            reason=outcome.reason,
            score=outcome.score,
            terms=to_named_values(outcome.terms),
            logged_json=outcome.logged_json,
        )
    message.reward_metrics.extend(to_named_values(work.reward_metrics))
    message.generate_seconds = work.generate_seconds
    message.score_seconds = work.score_seconds
    message.reference_seconds = work.reference_seconds


def _purpose(number: int) -> Purpose:
    if number not in _PURPOSE_NAMES:
        raise Corrupt(f"an entry of the queue is for the purpose {number}, which this version does not know")
    return _PURPOSE_NAMES[number]


def _row(sample: ExpectedSample) -> rollout_pb2.TaskRow:
    return rollout_pb2.TaskRow(
        rollout_id=sample.rollout_id,
        prompt_index=sample.prompt_index,
        sample_index=sample.sample_index,
        seed=sample.seed,
    )


def _sample(row: rollout_pb2.TaskRow) -> ExpectedSample:
    return ExpectedSample(row.rollout_id, row.prompt_index, row.sample_index, row.seed)


def _outcome(message: rollout_pb2.ScoreOutcome) -> ScoreOutcome:
    return ScoreOutcome(
        name=message.name,
        outcome=_OUTCOMES.get(message.status, ""),
        reason=message.reason,
        score=message.score if message.HasField("score") else None,
        terms=from_named_values(message.terms),
        logged_json=message.logged_json,
    )


def _ints(data: bytes) -> Ints:
    """Return the numbers of a field; none when its bytes are not whole numbers, which makes the sample unsound."""
    return np.frombuffer(data if len(data) % 4 == 0 else b"", dtype="<i4").astype(np.int32)


def _floats(data: bytes) -> Floats:
    """Return the numbers of a field, as `_ints` does."""
    return np.frombuffer(data if len(data) % 4 == 0 else b"", dtype="<f4").astype(np.float32)
