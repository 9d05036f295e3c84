"""Views, events and rows as messages of the API."""

import json
from typing import Any

from quatrain.batches import BatchRow
from quatrain.digests import canonical_json
from quatrain.joblog import Event, JobView
from quatrain.jobspec import parse_spec, spec_to_proto
from quatrain.v1 import common_pb2, job_pb2

NOT_METRICS = frozenset({"stage", "step", "attempt"})
FINISH_REASONS = {"stop": common_pb2.FINISH_REASON_STOP, "length": common_pb2.FINISH_REASON_LENGTH}


def job_message(job: str, document: dict[str, Any], view: JobView, *, with_spec: bool) -> job_pb2.Job:
    """A job as clients see it. An accepted job that no owner has taken yet is QUEUED."""
    state = "QUEUED" if view.state == "VALIDATING" else view.state
    message = job_pb2.Job(
        id=job,
        name=document["spec"]["name"],
        owner=document["owner"],
        state=f"JOB_STATE_{state}",
        stage=view.stage,
        phase=view.reason,
        step=view.step,
        total_steps=view.total_steps,
        attempt=view.attempt,
        policy_version=view.policy_version,
        revision=view.revision,
        metrics=named_values(view.latest_metrics),
        create_time=document["create_time"],
        update_time=view.update_time or document["create_time"],
        conditions=view.conditions,
        warnings=document["warnings"],
    )
    if document.get("forked_from") is not None:
        forked = document["forked_from"]
        message.forked_from.CopyFrom(job_pb2.ForkedFrom(job_id=forked["job"], step=forked["step"]))
    if view.error is not None:
        message.error.CopyFrom(job_pb2.JobError(reason=view.error["reason"], message=view.error["message"]))
    _set_models(message, view)
    if with_spec:
        message.spec.CopyFrom(spec_to_proto(parse_spec(document["request"])))
        message.resolved_spec_json = canonical_json(document["spec"]).decode()
    return message


def _set_models(message: job_pb2.Job, view: JobView) -> None:
    fields = {"ppo": message.model, "reward": message.reward_model, "sft": message.sft_model}
    for stage, field in fields.items():
        if stage in view.stage_results:
            model = view.stage_results[stage]["model"]
            field.CopyFrom(common_pb2.ModelRef(uri=model["uri"], digest=model["digest"]))
    if "ppo" in view.stage_results:
        message.weights_sha256 = view.stage_results["ppo"]["weights_sha256"]


def preview_message(document: dict[str, Any]) -> job_pb2.Job:
    """A job that was only checked: no id, no state."""
    return job_pb2.Job(
        name=document["spec"]["name"],
        owner=document["owner"],
        resolved_spec_json=canonical_json(document["spec"]).decode(),
        warnings=document["warnings"],
        spec=spec_to_proto(parse_spec(document["request"])),
    )


def named_values(row: dict[str, Any]) -> list[common_pb2.NamedValue]:
    """Metrics of one step in the order of their names."""
    return [common_pb2.NamedValue(name=name, value=row[name]) for name in sorted(row) if name not in NOT_METRICS]


def event_message(event: Event) -> job_pb2.JobEvent:
    """One event of the log."""
    return job_pb2.JobEvent(
        revision=event.revision,
        type=event.type,
        data_json=canonical_json(event.data).decode(),
        time=event.time,
        actor=event.actor,
    )


def rollout_message(row: BatchRow, step: int) -> job_pb2.Rollout:
    """One sample."""
    terms = json.loads(row.terms) if row.terms else {}
    return job_pb2.Rollout(
        id=row.rollout_id,
        step=step,
        prompt_index=row.prompt_index,
        sample_index=row.sample_index,
        policy_version=row.policy_version,
        status=row.status,
        reason=row.reason,
        prompt=row.prompt,
        completion=row.completion,
        finish_reason=FINISH_REASONS.get(row.finish_reason, common_pb2.FINISH_REASON_UNSPECIFIED),
        score=row.score,
        gold=row.gold,
        terms=named_values(terms),
        prompt_ids=row.prompt_ids.tolist(),
        completion_ids=row.completion_ids.tolist(),
        logprobs=row.logprobs.tolist(),
        ref_logprobs=row.ref_logprobs.tolist(),
    )
