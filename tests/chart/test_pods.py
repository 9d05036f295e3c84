"""What holds for every pod that the chart makes, whatever the values."""

import re
from typing import Any

import pytest
from tests.chart.matrix import ALL, rendering
from tests.chart.rendering import SERVICES, WORKLOADS, Pod, Rendered, render

SELECTED = ("app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component")
# What Pod Security `restricted` lets a pod mount.
VOLUMES = {"configMap", "emptyDir", "secret", "projected", "ephemeral", "persistentVolumeClaim", "downwardAPI", "csi"}
SECRET_WORDS = re.compile(r"password|secret_key|secret-key|token|requirepass", re.IGNORECASE)

everywhere = pytest.mark.parametrize("name", ALL)


@everywhere
def test_pod_security_restricted(name: str) -> None:
    for pod in rendering(name).pods:
        security = pod.spec["securityContext"]
        assert security["runAsNonRoot"] is True
        assert (security["runAsUser"], security["runAsGroup"], security["fsGroup"]) == (10001, 10001, 10001)
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.spec.keys()
        for container in pod.containers:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, (pod.name, container["name"])
            assert not any("hostPort" in port for port in container.get("ports", []))
        for volume in pod.spec["volumes"]:
            assert volume.keys() - {"name"} <= VOLUMES, (pod.name, volume)


@everywhere
def test_no_rights(name: str) -> None:
    rendered = rendering(name)
    assert not rendered.of("Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding")
    for pod in rendered.pods:
        assert pod.spec["automountServiceAccountToken"] is False
        assert pod.spec["enableServiceLinks"] is False
    for account in rendered.of("ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


@everywhere
def test_resources_of_every_container(name: str) -> None:
    for pod in rendering(name).pods:
        for container in pod.containers:
            resources = container["resources"]
            assert {"cpu", "memory", "ephemeral-storage"} <= resources["requests"].keys(), (pod.name, container["name"])
            assert {"memory", "ephemeral-storage"} <= resources["limits"].keys()
            gpus = {key: value for key, value in resources["limits"].items() if "/" in key}
            assert gpus == {key: value for key, value in resources["requests"].items() if "/" in key}


@everywhere
def test_shared_memory_fits_into_the_limit(name: str) -> None:
    """A tmpfs counts as memory of the pod: one that is larger than the limit would end the process that fills it."""
    for pod in rendering(name).pods:
        sizes = [volume["emptyDir"].get("sizeLimit") for volume in pod.spec["volumes"] if _in_memory(volume)]
        limit = sum(_mebibytes(container["resources"]["limits"]["memory"]) for container in pod.spec["containers"])
        assert sum(_mebibytes(size) for size in sizes) <= limit / 4, pod.name


@everywhere
def test_mounts_are_volumes(name: str) -> None:
    rendered = rendering(name)
    for pod in rendered.pods:
        volumes = {volume["name"] for volume in pod.spec["volumes"]}
        claims = {claim["metadata"]["name"] for claim in pod.owner["spec"].get("volumeClaimTemplates", [])}
        mounted = {mount["name"] for container in pod.containers for mount in container["volumeMounts"]}
        assert mounted == volumes | claims, pod.name
        for volume in pod.spec["volumes"]:
            if config := volume.get("configMap"):
                assert ("ConfigMap", config["name"]) in rendered.names


@everywhere
def test_labels_and_selectors(name: str) -> None:
    rendered = rendering(name)
    for each in rendered.objects:
        labels = each["metadata"].get("labels", {})
        if name != "extra" or not each["metadata"]["name"].endswith("-more"):
            assert {*SELECTED, "app.kubernetes.io/managed-by", "helm.sh/chart"} <= labels.keys(), each["metadata"]
    for pod in rendered.pods:
        if pod.owner["kind"] in WORKLOADS:
            selector = pod.owner["spec"]["selector"]["matchLabels"]
            assert tuple(selector) == SELECTED
            assert selector.items() <= pod.labels.items()
            # A new version of the chart alone exchanges no pod.
            assert "helm.sh/chart" not in pod.labels
    workloads = [pod for pod in rendered.pods if pod.owner["kind"] in WORKLOADS]
    assert len({tuple(pod.labels[key] for key in SELECTED) for pod in workloads}) == len(workloads)


@everywhere
def test_probes(name: str) -> None:
    rendered = rendering(name)
    for component in SERVICES:
        main = rendered.pod(component).main
        assert main["startupProbe"]["grpc"] == main["readinessProbe"]["grpc"]
        assert main["livenessProbe"]["grpc"] == {"port": 50060}
        ports = {port["name"]: port["containerPort"] for port in main["ports"]}
        assert (ports["health"], ports["metrics"]) == (50060, 9090)
    for pod in rendered.pods:
        if pod.owner["kind"] in WORKLOADS:
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= pod.main.keys(), pod.name


@everywhere
def test_the_end_has_its_time(name: str) -> None:
    rendered = rendering(name)
    for component in SERVICES:
        pod = rendered.pod(component)
        pause = pod.main.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        grace = rendered.config(component)["server"]["shutdown_grace"]
        assert pod.spec["terminationGracePeriodSeconds"] == pause + 2 * grace + 10
        assert "preStop" in pod.main.get("lifecycle", {}) or name == "no-pause"


@everywhere
def test_no_secret_is_readable(name: str) -> None:
    """Passwords are in Secrets, and reach the processes as files."""
    rendered = rendering(name)
    for each in rendered.of("ConfigMap"):
        for key, text in each["data"].items():
            if not key.endswith((".py", ".json")):
                lines = [line for line in text.splitlines() if SECRET_WORDS.search(line) and not line.startswith("#")]
                assert all("tokens_file" in line for line in lines), (each["metadata"]["name"], lines)
    for pod in rendered.pods:
        for container in pod.containers:
            for variable in container.get("env", []):
                assert "secretKeyRef" not in variable.get("valueFrom", {}), variable
                if SECRET_WORDS.search(variable["name"]):
                    assert variable["name"].endswith("_FILE"), variable
                    assert variable["value"].startswith("/etc/"), variable


@everywhere
def test_images(name: str) -> None:
    for pod in rendering(name).pods:
        for container in pod.containers:
            image, _, tag = container["image"].rpartition(":")
            assert image
            assert tag not in ("", "latest")
            assert ("registry.example" in image) == (name == "registry")
        assert bool(pod.spec.get("imagePullSecrets")) == (name == "registry")


def test_checksum_follows_the_configuration_of_its_service() -> None:
    before, after = rendering("default"), render({"generation": {"config": {"generation": {"job_slots": 4}}}})
    changed = {component for component in SERVICES if _checksum(before, component) != _checksum(after, component)}
    assert changed == {"generation"}


def test_digest_goes_before_the_tag() -> None:
    digest = "sha256:" + "0" * 64
    pod = render({"reward": {"image": {"digest": digest}}}).pod("reward")
    assert pod.main["image"] == f"quatrain/reward@{digest}"


def test_placement_reaches_the_pod() -> None:
    pod = rendering("placed").pod("generation")
    assert pod.spec["nodeSelector"] == {"disk": "fast"}
    assert pod.spec["priorityClassName"] == "training"
    assert pod.spec["runtimeClassName"] == "nvidia"
    assert pod.spec["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert pod.labels["team"] == "a"
    assert pod.annotations["note"] == "b"
    assert pod.main["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert pod.owner["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
    assert {"name": "NCCL_DEBUG", "value": "INFO"} in pod.main["env"]
    claim = next(volume for volume in pod.spec["volumes"] if volume["name"] == "cache")["ephemeral"]
    assert claim["volumeClaimTemplate"]["spec"]["storageClassName"] == "fast"
    (spread,) = pod.spec["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"].items() <= pod.labels.items()
    assert not any("/" in key for key in rendering("placed").pod("orchestrator").main["resources"]["limits"])


def _in_memory(volume: dict[str, Any]) -> bool:
    return bool(volume.get("emptyDir", {}).get("medium") == "Memory")


def _mebibytes(quantity: str) -> int:
    number, unit = quantity[:-2], quantity[-2:]
    return int(number) * {"Mi": 1, "Gi": 1024}[unit]


def _checksum(rendered: Rendered, component: str) -> str:
    pod: Pod = rendered.pod(component)
    return pod.annotations["checksum/config"]
