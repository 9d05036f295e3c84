"""Who may call what of the public API, and whose jobs a caller sees."""

from quatrain.errors import PermissionRefused
from quatrain.joblog import jobs
from quatrain.orchestrator.plan import Plan
from quatrain.rpc.server.access import Role, caller

_OF_ROLE = {
    Role.VIEWER: {
        "JobService": (
            "GetJob",
            "ListJobs",
            "WatchJob",
            "ListEvents",
            "QueryMetrics",
            "ListRollouts",
            "ListCheckpoints",
            "TailLogs",
            "DownloadCheckpoint",
        ),
        "ArtifactService": ("ListModels", "Download"),
    },
    Role.SUBMITTER: {
        "JobService": (
            "CreateJob",
            "TestReward",
            "CancelJob",
            "PauseJob",
            "ResumeJob",
            "ForkJob",
            "DeleteJob",
            "PinCheckpoint",
            "DeleteCheckpoint",
            "ExportCheckpoint",
            "Chat",
        ),
        "ArtifactService": ("GetUpload", "Upload", "ImportModel"),
    },
}

ROLES: dict[str, Role] = {
    f"/quatrain.v1.{service}/{method}": role
    for role, services in _OF_ROLE.items()
    for service, methods in services.items()
    for method in methods
}
"""Least role of each method. What is not here is refused; a test compares it with the protos."""


def check_visible(plan: Plan) -> None:
    """Raise NotFound, as for a job that does not exist, unless the caller may read the job."""
    if not caller().may_read(plan.document.owner):
        raise jobs.no_such_job(plan.job)


def check_changeable(plan: Plan) -> None:
    """Raise NotFound unless the caller may read the job, PermissionRefused if they may only read it."""
    check_visible(plan)
    owner = plan.document.owner
    if not caller().may_change(owner):
        raise PermissionRefused(f"job {plan.job!r} belongs to {owner!r}: only its owner and admins may change it")
