"""Custom resource definitions of the controllers that the chart can use, for its `.Capabilities` and its objects."""

from tests.cluster.api import Cluster, holds
from tests.cluster.programs import definition_files


def install_definitions(cluster: Cluster, *names: str) -> None:
    """Installs custom resource definitions by the names of `DEFINITIONS`; waits until the API server serves them."""
    files = [f"--filename={file}" for name in names for file in definition_files(name)]
    cluster.kubectl("apply", "--server-side", *files)
    cluster.wait("the definitions", lambda: all(holds(crd, "Established") for crd in cluster.objects("crd")))
