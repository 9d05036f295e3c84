"""The life of a release, for each values file: installed, tested, upgraded, rolled back, uninstalled with data kept."""

import pytest
from tests.cluster.api import Cluster
from tests.cluster.control.profiles import PROFILES, prepare
from tests.cluster.release import Release


@pytest.mark.parametrize("profile", PROFILES)
def test_a_release_lives_as_its_values_say(cluster: Cluster, namespace: str, profile: str) -> None:
    release = prepare(Release(cluster, namespace), profile)

    release.install()
    assert "Succeeded" in release.test()
    claims = cluster.names("pvc", namespace)

    pods = set(release.pods("generation"))
    release.upgrade("--set=generation.podAnnotations.changed=yes")
    assert pods.isdisjoint(release.pods("generation"))
    assert template_annotations(release).get("changed") == "yes"

    release.rollback(1)
    assert "changed" not in template_annotations(release)

    release.uninstall()
    left = [kind for kind in ("deployment", "statefulset", "service", "configmap") if release.objects(kind)]
    assert left == []
    assert cluster.names("pvc", namespace) == claims


def test_what_was_kept_is_used_again(cluster: Cluster, namespace: str) -> None:
    """The bundled stores open their kept volumes with the kept passwords, and clients keep their token."""
    release = Release(cluster, namespace)
    release.install()
    claims, secrets = cluster.names("pvc", namespace), {one["metadata"]["name"]: one["data"] for one in kept(release)}

    release.uninstall()
    release.install()

    assert claims
    assert cluster.names("pvc", namespace) == claims
    assert {one["metadata"]["name"]: one["data"] for one in kept(release)} == secrets


@pytest.mark.parametrize("apart", [False, True], ids=["one-namespace", "two-namespaces"])
def test_two_releases_do_not_touch_each_other(cluster: Cluster, namespace: str, apart: bool) -> None:
    other = cluster.namespace(f"{namespace}-2") if apart else namespace
    first, second = Release(cluster, namespace, "first"), Release(cluster, other, "second" if not apart else "first")
    try:
        first.install()
        second.install()
        for release, mine in ((first, first.pods()), (second, second.pods())):
            assert addresses_behind_services(release) <= {address_of(release, pod) for pod in mine}
        before = second.pods()

        first.uninstall()

        assert second.pods() == before
        assert "Succeeded" in second.test()
    finally:
        if apart:
            cluster.drop_namespace(other)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("generation.replicaz=2", "replicaz"),
        ("generation.replicas=many", "generation/replicas"),
        ("rollout.autoscaling.kind=sometimes", "rollout/autoscaling/kind"),
    ],
)
def test_a_bad_value_is_refused_in_words(cluster: Cluster, namespace: str, value: str, words: str) -> None:
    refused = Release(cluster, namespace, values=[f"--set={value}"]).try_install()

    assert refused.code != 0
    assert words in refused.errors
    assert cluster.names("deployment", namespace) == []


def template_annotations(release: Release) -> dict[str, str]:
    template = release.object("deployment", "generation")["spec"]["template"]
    return dict(template["metadata"]["annotations"])


def kept(release: Release) -> list[dict[str, dict[str, str]]]:
    return release.objects("secret")


def address_of(release: Release, pod: str) -> str:
    return str(release.cluster.get("pod", pod, release.namespace)["status"]["podIP"])


def addresses_behind_services(release: Release) -> set[str]:
    services = {service["metadata"]["name"] for service in release.objects("service")}
    slices = release.cluster.objects("endpointslice", release.namespace)
    own = [one for one in slices if one["metadata"]["labels"]["kubernetes.io/service-name"] in services]
    return {address for one in own for end in one.get("endpoints") or () for address in end["addresses"]}
