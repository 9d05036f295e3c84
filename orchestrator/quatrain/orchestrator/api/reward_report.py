"""The message of what a reward said about rows."""

import math

from quatrain.orchestrator.peers.service_clients import to_named_values
from quatrain.orchestrator.submission.reward_rehearsal import Rehearsal, RewardReport, ScoredRow
from quatrain.v1 import job_pb2


def report_message(rehearsal: Rehearsal, report: RewardReport) -> job_pb2.TestRewardResponse:
    """Return the answer of TestReward."""
    return job_pb2.TestRewardResponse(
        rows=[_row(row) for row in report.rows],
        prompts=rehearsal.prompts,
        together=report.together,
        together_seconds=report.together_seconds,
        metrics=to_named_values(report.metrics),
        warnings=report.warnings,
    )


def _row(row: ScoredRow) -> job_pb2.TestedRow:
    return job_pb2.TestedRow(
        row=row.row,
        prompt_json=row.sample.prompt_json,
        completion=row.completion,
        source=row.source,
        outcome=row.outcome,
        score=row.score if row.score is not None and math.isfinite(row.score) else None,
        terms=to_named_values(row.terms),
        reason=row.reason,
        logged_json=row.logged_json,
        seconds=row.seconds,
    )
