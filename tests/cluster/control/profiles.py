"""The values files of the chart, and what a cluster must have before a release with them is installed."""

from dataclasses import replace

from tests.cluster.release import CHART, Release

PROFILES = ("values.yaml", *sorted(file.name for file in CHART.glob("values-*.yaml")))


def prepare(release: Release, profile: str) -> Release:
    """The release with a values file, after the Secrets that it names were made."""
    return replace(release, values=[*release.values, f"--values={CHART / profile}"])
