"""One control plane with fake GPU nodes for all tests here; each test has a namespace of its own."""

import uuid
from collections.abc import Iterator

import pytest
from tests.cluster.api import Cluster
from tests.cluster.control_plane import Site, run_control_plane
from tests.cluster.definitions import install_definitions
from tests.cluster.fake_nodes import fake_nodes
from tests.cluster.volumes import volumes_on_demand


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("control-plane"))


@pytest.fixture(scope="session")
def cluster(site: Site) -> Iterator[Cluster]:
    with run_control_plane(site) as cluster, fake_nodes(site, cluster):
        install_definitions(cluster, "keda", "cert-manager", "prometheus")
        with volumes_on_demand(cluster, site.subfolder("volumes")):
            yield cluster


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """Enforces the Pod Security level `restricted`."""
    name = cluster.namespace(f"test-{uuid.uuid4().hex[:8]}")
    yield name
    cluster.drop_namespace(name)
