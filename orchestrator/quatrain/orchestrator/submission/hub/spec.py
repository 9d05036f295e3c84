"""The resolved spec of a job that read from the Hub: each name with the commit that was read."""

from collections.abc import Mapping

from quatrain.jobspec import JobSpec, apply_overrides, parse_spec, resolved_document
from quatrain.jobspec.sections import DATA_SETS
from quatrain.orchestrator.submission.hub.address import SCHEME

MODEL = "model.uri"


def name_commits(spec: JobSpec, origins: Mapping[str, str]) -> JobSpec:
    """Return the spec with the exact names of `origins`, by field; the policy is named by its digest already."""
    changes = [
        f"{field}.uri={origin}" if field in DATA_SETS else f"{field}={origin}"
        for field, origin in origins.items()
        if field != MODEL and origin.startswith(SCHEME) and " " not in origin
    ]
    return parse_spec(apply_overrides(resolved_document(spec), changes)) if changes else spec
