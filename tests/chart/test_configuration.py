"""Every process takes the configuration that the chart gives it: through the product's own loader, with its image's
environment beneath and the chart's on top."""

import re
from pathlib import Path
from typing import Any

import pytest
from tests.chart.matrix import ALL, FILES, rendering
from tests.chart.rendering import ROOT, SERVICES, Object, Pod, Rendered, render

from quatrain.config import LoadedConfig, load_config
from quatrain.errors import InvalidInput
from quatrain.learner.group.place import place_of
from quatrain.rpc.client.resolving import Resolver
from quatrain.rpc.server.security import check_exposure

everywhere = pytest.mark.parametrize("name", ALL)
# What LeaderWorkerSet puts before the variables of the second pod of a group.
INJECTED = {"LWS_WORKER_INDEX": "1", "LWS_LEADER_ADDRESS": "quatrain-learner-ranks-0.quatrain-learner-ranks.default"}
MODULES = {component: f"quatrain.{component}" for component in SERVICES} | {"rollout": "quatrain.orchestrator.rollout"}


def image_environment(component: str) -> dict[str, str]:
    """ENV of the service's image and of its base."""
    image = "orchestrator" if component == "rollout" else component
    found: dict[str, str] = {}
    for name in ("base", image):
        text = (ROOT / "docker" / f"{name}.Dockerfile").read_text().replace("\\\n", " ")
        for line in re.findall(r"^ENV (.*)$", text, re.MULTILINE):
            found |= dict(re.findall(r"(\S+?)=(\S+)", line))
    return {key: value for key, value in found.items() if key.startswith("QUATRAIN_")}


def load(rendered: Rendered, component: str, folder: Path) -> LoadedConfig:
    """The configuration as the process loads it, with the files of the pod in a folder."""
    pod = rendered.pod(component)
    for mount in pod.main["volumeMounts"]:
        volume = next(each for each in pod.spec["volumes"] if each["name"] == mount["name"])
        target = folder / mount["mountPath"].lstrip("/")
        target.mkdir(parents=True, exist_ok=True)
        for key, text in contents(rendered, volume).items():
            (target / key).write_text(text)
    environment = image_environment(component)
    for variable in pod.main["env"]:
        value = re.sub(r"\$\((\w+)\)", lambda found: INJECTED[found[1]], variable.get("value", pod.name))
        environment[variable["name"]] = str(folder) + value if value.startswith("/etc/") else value
    return load_config(component, [], environment)


def contents(rendered: Rendered, volume: Object) -> dict[str, str]:
    """The files of a volume. Secrets that come from outside hold something, and what the chart asks of them."""
    if "configMap" in volume:
        return dict(rendered.get("ConfigMap", volume["configMap"]["name"])["data"])
    if "secret" not in volume:
        return {}
    name, items = volume["secret"]["secretName"], volume["secret"].get("items", [])
    if ("Secret", name) in rendered.names:
        there = rendered.get("Secret", name)["data"]
        assert {item["key"] for item in items} <= there.keys(), f"{name} has no {items}"
    known = {"url": "redis://:secret@redis.example:6379/0"}
    return {item["path"]: known.get(item["key"], "something") for item in items}


def test_a_pod_of_a_group_knows_its_place(tmp_path: Path) -> None:
    place = place_of(load(rendering("ranks"), "learner", tmp_path).config)
    assert (place.rank, place.size, place.port) == (1, 2, 29500)
    assert place.host == INJECTED["LWS_LEADER_ADDRESS"]


@everywhere
@pytest.mark.parametrize("component", SERVICES)
def test_process_takes_its_configuration(name: str, component: str, tmp_path: Path) -> None:
    rendered = rendering(name)
    loaded = load(rendered, component, tmp_path)
    # What the file says holds: nothing of the image's environment goes before it.
    for section, keys in rendered.config(component).items():
        for key, value in keys.items():
            assert plain(getattr(getattr(loaded.config, section), key)) == plain(value), f"{section}.{key}"
    # Behind the Service nobody would answer, were it loopback; and it refuses to serve elsewhere without protection.
    assert loaded.config.server.host == "0.0.0.0"
    check_exposure(loaded.config, component, public=component == "orchestrator")
    assert rendered.pod(component).main["command"] == ["python", "-m", MODULES[component]]
    ports = {port["name"]: port["containerPort"] for port in rendered.pod(component).main["ports"]}
    rendezvous = ports.pop("rendezvous", None)
    assert (rendezvous is not None) == (rendered.pod(component).owner["kind"] == "LeaderWorkerSet")
    server = loaded.config.server
    assert ports == {"grpc": server.port, "health": server.health_port, "metrics": server.metrics_port}


def plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return str(value).removesuffix(".0")


@everywhere
def test_targets_are_services_of_the_release(name: str, tmp_path: Path) -> None:
    rendered = rendering(name)
    for component in ("orchestrator", "rollout"):
        config = load(rendered, component, tmp_path / component).config
        section = getattr(config, component)
        targets = {part: getattr(section, part) for part in ("generation", "reward", "reference")}
        if component == "orchestrator":
            (targets["learner"],) = config.learner.targets
        for part, target in targets.items():
            Resolver(target)
            service, port = named(target)
            assert serves(rendered, service, port) == part
    pool = load(rendered, "orchestrator", tmp_path / "1").config.orchestrator.pool
    assert pool == load(rendered, "rollout", tmp_path / "2").config.rollout.pool


@everywhere
def test_store_and_queue(name: str, tmp_path: Path) -> None:
    rendered = rendering(name)
    for component in SERVICES:
        storage = load(rendered, component, tmp_path / component).config.storage
        assert (storage.kind, bool(storage.access_key), bool(storage.secret_key)) == ("s3", True, True)
        if rendered.of("StatefulSet") and ("Service", f"{prefix(rendered)}-minio") in rendered.names:
            service, _, port = storage.endpoint.partition(":")
            assert serves(rendered, service, int(port)) == "minio"
            assert not storage.secure
    for component in ("orchestrator", "rollout"):
        url = load(rendered, component, tmp_path / component).config.queue.url
        assert url.startswith(("redis://", "rediss://"))
        assert "127.0.0.1" not in url


def test_external_servers_without_secrets_in_the_file(tmp_path: Path) -> None:
    rendered = rendering("external-redis-open")
    assert load(rendered, "rollout", tmp_path).config.queue.url == "redis://redis/3"
    assert "queue" not in rendering("external-redis").config("rollout")
    assert "queue" not in rendering("default").config("orchestrator")


@pytest.mark.parametrize("name", FILES)
def test_names_of_processes_are_those_of_pods(name: str) -> None:
    for component in ("orchestrator", "rollout", "learner"):
        pod: Pod = rendering(name).pod(component)
        (found,) = [each for each in pod.main["env"] if each["name"] == f"QUATRAIN_{component.upper()}__ID"]
        assert found["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}


def test_own_configuration_goes_before_that_of_all(tmp_path: Path) -> None:
    rendered = rendering("configured")
    assert load(rendered, "orchestrator", tmp_path / "1").config.telemetry.level == "warning"
    other = load(rendered, "generation", tmp_path / "2").config
    assert (other.telemetry.level, other.telemetry.format, other.server.max_message_mib) == ("debug", "console", 128)
    assert other.generation.job_slots == 4


def test_without_the_chart_a_process_would_refuse(tmp_path: Path) -> None:
    """That check_exposure says no to a configuration is what makes the check above worth something."""
    rendered = render()
    loaded = load(rendered, "generation", tmp_path)
    open_one = loaded.config.model_copy(update={"server": loaded.config.server.model_copy(update={"insecure": False})})
    with pytest.raises(InvalidInput, match="without TLS"):
        check_exposure(open_one, "generation", public=False)


def prefix(rendered: Rendered) -> str:
    return rendered.pod("generation").name.removesuffix("-generation")


def named(target: str) -> tuple[str, int]:
    host, _, port = target.removeprefix("dns:///").rpartition(":")
    return host, int(port)


def serves(rendered: Rendered, host: str, port: int) -> str:
    """Component behind a name of a Service, which has the port and leads to the container's."""
    name, namespace, kind = host.split(".")
    assert (namespace, kind) == ("default", "svc")
    service = rendered.get("Service", name)
    (found,) = [each for each in service["spec"]["ports"] if each["port"] == port]
    pod = next(pod for pod in rendered.pods if service["spec"]["selector"].items() <= pod.labels.items())
    numbers = {each["name"]: each["containerPort"] for each in pod.main["ports"]}
    assert numbers[found["targetPort"]] == port
    return pod.component
