"""Views, events and rows as messages of the API."""

import json
from collections.abc import Mapping

from quatrain.batches import BatchRow
from quatrain.digests import canonical_json
from quatrain.joblog import Event, JobView
from quatrain.jobspec import spec_to_proto
from quatrain.jobspec.stored_spec import open_spec
from quatrain.orchestrator.plan import Plan
from quatrain.stages import POLICY_STAGE, STAGES
from quatrain.v1 import common_pb2, job_pb2

FINISH_REASONS = {"stop": common_pb2.FINISH_REASON_STOP, "length": common_pb2.FINISH_REASON_LENGTH}


def job_message(plan: Plan, view: JobView, *, with_spec: bool) -> job_pb2.Job:
    """A job as clients see it. An accepted job that no owner has taken yet is QUEUED."""
    state, document = "QUEUED" if view.state == "VALIDATING" else view.state, plan.document
    message = job_pb2.Job(
        id=plan.job,
        name=plan.spec.name,
        owner=document.owner,
        state=f"JOB_STATE_{state}",
        stage=view.stage,
        phase=view.reason,
        step=view.step,
        total_steps=view.total_steps,
        attempt=view.attempt,
        policy_version=view.policy_version,
        revision=view.revision,
        metrics=[] if view.latest_metrics is None else named_values(view.latest_metrics.values),
        create_time=document.create_time,
        update_time=view.update_time or document.create_time,
        conditions=view.conditions,
        warnings=document.warnings,
    )
    if plan.forked_from is not None:
        message.forked_from.CopyFrom(job_pb2.ForkedFrom(job_id=plan.forked_from.job, step=plan.forked_from.step))
    if view.error is not None:
        message.error.CopyFrom(job_pb2.JobError(reason=view.error.reason, message=view.error.message))
    _set_models(message, view)
    if with_spec:
        message.spec.CopyFrom(spec_to_proto(open_spec(document.request)))
        message.resolved_spec_json = canonical_json(document.spec).decode()
    return message


def _set_models(message: job_pb2.Job, view: JobView) -> None:
    for stage in STAGES:
        result = view.stage_results.get(stage.name)
        if result is not None:
            getattr(message, stage.result_field).CopyFrom(result.model.to_proto())
        if result is not None and stage is POLICY_STAGE:
            message.weights_sha256 = result.weights_sha256


def preview_message(plan: Plan) -> job_pb2.Job:
    """A job that was only checked: no id, no state."""
    document = plan.document
    return job_pb2.Job(
        name=plan.spec.name,
        owner=document.owner,
        resolved_spec_json=canonical_json(document.spec).decode(),
        warnings=document.warnings,
        spec=spec_to_proto(open_spec(document.request)),
    )


def named_values(values: Mapping[str, float | None]) -> list[common_pb2.NamedValue]:
    """Metrics of one step in the order of their names."""
    return [common_pb2.NamedValue(name=name, value=values[name]) for name in sorted(values)]


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
