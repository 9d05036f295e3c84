"""Who may call what of the public API, and whose jobs a caller sees."""

from typing import Any

from quatrain.errors import PermissionRefused
from quatrain.joblog import jobs
from quatrain.rpc.access import Role, caller

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


def owner_of(document: dict[str, Any]) -> str:
    """Who submitted the job of this document; nobody if it is damaged, so that only admins see it."""
    return str(document.get("owner", ""))


def check_visible(job: str, document: dict[str, Any]) -> None:
    """Raises NotFound, as for a job that does not exist, unless the caller may read the job of this document."""
    if not caller().may_read(owner_of(document)):
        raise jobs.no_such_job(job)


def check_changeable(job: str, document: dict[str, Any]) -> None:
    """Raises NotFound unless the caller may read the job, PermissionRefused if he may only read it."""
    check_visible(job, document)
    owner = owner_of(document)
    if not caller().may_change(owner):
        raise PermissionRefused(f"job {job!r} belongs to {owner!r}: only its owner and admins may change it")
