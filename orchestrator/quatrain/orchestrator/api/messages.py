"""Views, events and rows as messages of the API."""

import json
from collections.abc import Mapping, Sequence

from quatrain.batches import BatchRow
from quatrain.digests import canonical_json
from quatrain.errors import InvalidInput
from quatrain.joblog import Event, JobView
from quatrain.joblog.compact import MetricRows
from quatrain.jobspec import spec_to_proto
from quatrain.jobspec.stored_spec import open_spec
from quatrain.orchestrator.plan import Plan
from quatrain.stages import POLICY_STAGE, STAGES, stage_named
from quatrain.v1 import common_pb2, job_pb2

FINISH_REASONS = {"stop": common_pb2.FINISH_REASON_STOP, "length": common_pb2.FINISH_REASON_LENGTH}


def job_message(plan: Plan, view: JobView, *, with_spec: bool) -> job_pb2.Job:
    """Return a job as clients see it."""
    document = plan.document
    message = job_pb2.Job(
        id=plan.job,
        name=plan.spec.name,
        owner=document.owner,
        state=state_name(view),
        stage=view.stage,
        phase=view.phase or _reason(view),
        step=view.step,
        total_steps=view.total_steps,
        attempt=view.stage_attempt,
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


def state_name(view: JobView) -> str:
    """Return the state as the API has it."""
    return f"JOB_STATE_{state_word(view)}"


def state_word(view: JobView) -> str:
    """Return the state as people see it. An accepted job that no owner has taken yet is QUEUED."""
    return "QUEUED" if view.state == "VALIDATING" else view.state


def _reason(view: JobView) -> str:
    """Return why the job is in its state, unless its error or a condition says the same."""
    return "" if view.error is not None or view.reason in view.conditions.values() else view.reason


def _set_models(message: job_pb2.Job, view: JobView) -> None:
    for stage in STAGES:
        result = view.stage_results.get(stage.name)
        if result is None:
            continue
        model = result.model.to_proto()
        message.stage_models[stage.name].CopyFrom(model)
        if stage.result in job_pb2.Job.DESCRIPTOR.fields_by_name:
            getattr(message, stage.result).CopyFrom(model)
        if stage is POLICY_STAGE:
            message.weights_sha256 = result.weights_sha256


def preview_message(plan: Plan) -> job_pb2.Job:
    """Return a job that was only checked: it has no id and no state."""
    document = plan.document
    return job_pb2.Job(
        name=plan.spec.name,
        owner=document.owner,
        resolved_spec_json=canonical_json(document.spec).decode(),
        warnings=document.warnings,
        spec=spec_to_proto(open_spec(document.request)),
    )


def named_values(values: Mapping[str, float | None]) -> list[common_pb2.NamedValue]:
    """Return the metrics of one step in the order of their names."""
    return [common_pb2.NamedValue(name=name, value=values[name]) for name in sorted(values)]


def metrics_message(view: JobView, request: job_pb2.QueryMetricsRequest) -> job_pb2.QueryMetricsResponse:
    """Return the rows that were asked for. For a thread: there is one for each step. Raises InvalidInput."""
    stage = stage_named(request.stage).name if request.stage else POLICY_STAGE.name
    if 0 < request.to_step < request.from_step:
        raise InvalidInput(f"from_step {request.from_step} comes after to_step {request.to_step}")
    rows = view.metrics.get(stage, MetricRows()).between(
        request.from_step or 1, request.to_step or 2**62, request.names
    )
    steps = (
        job_pb2.StepMetrics(stage=stage, step=row.step, attempt=row.attempt, values=named_values(row.values))
        for row in rows
    )
    return job_pb2.QueryMetricsResponse(steps=steps)


def event_message(event: Event) -> job_pb2.JobEvent:
    """Return one event of the log."""
    return job_pb2.JobEvent(
        revision=event.revision,
        type=event.type,
        data_json=canonical_json(event.data).decode(),
        time=event.time,
        actor=event.actor,
    )


def rollouts_message(
    rows: Sequence[BatchRow], step: int, request: job_pb2.ListRolloutsRequest
) -> job_pb2.ListRolloutsResponse:
    """Return the samples that were asked for. For a thread: a step may have tens of thousands. Raises InvalidInput."""
    if request.order_by in ("score", "-score"):
        scored = [row for row in rows if row.score is not None]
        rows = sorted(scored, key=lambda row: row.score or 0.0, reverse=request.order_by == "-score")
    elif request.order_by:
        raise InvalidInput(f"order_by {request.order_by!r}: use score, -score or nothing")
    rows = rows[: request.limit] if request.limit > 0 else rows
    return job_pb2.ListRolloutsResponse(rollouts=(rollout_message(row, step) for row in rows), step=step)


def rollout_message(row: BatchRow, step: int) -> job_pb2.Rollout:
    """Return one sample."""
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
