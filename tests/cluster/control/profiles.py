"""The values files as they are used, and what a cluster must have before a release with them is installed."""

from dataclasses import replace

from tests.chart.matrix import FILES
from tests.cluster.api import Manifest
from tests.cluster.release import CHART, Release

PROFILES = tuple(FILES)
# Secrets that values-production.yaml names. No pod reads them here.
SECRETS = ("quatrain-tokens-file", "quatrain-api-tls", "quatrain-redis", "quatrain-s3")


def prepare(release: Release, profile: str) -> Release:
    """The release with the values files of a profile, after the Secrets that they name were made."""
    if profile.startswith("production"):
        release.cluster.apply(*(_secret(name) for name in SECRETS), namespace=release.namespace)
    files = [f"--values={CHART / name}" for name in FILES[profile]]
    return replace(release, values=[*release.values, *files])


def _secret(name: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"any": "thing"}}
