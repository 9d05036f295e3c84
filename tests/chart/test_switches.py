"""What each switch turns on and off."""

from collections import Counter

import pytest
from tests.chart.matrix import FILES, SWITCHES, rendering, scales_itself
from tests.chart.rendering import CHART, SERVICES, WORKLOADS, Rendered, helm, render

SCALED = ("rollout", "generation", "reward", "reference")


def kinds(rendered: Rendered) -> Counter[str]:
    return Counter(each["kind"] for each in rendered.objects)


@pytest.mark.parametrize("name", FILES)
def test_strict_lint(name: str) -> None:
    files = [f"--values={CHART / file}" for file in FILES[name]]
    # Lint offers no way to say what a cluster has, so the switches that need operators are off.
    off = '{"enabled":false}'
    plain = [f"--set-json=monitoring.{each}={off}" for each in ("serviceMonitor", "rules")]
    plain += [f'--set-json={each}.autoscaling.kind="none"' for each in SCALED]
    plain.append(f"--set-json=tls.certManager={off}")
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART), *files, *plain)


def test_default_system() -> None:
    found = kinds(rendering("default"))
    assert found["Deployment"] == 5
    assert found["StatefulSet"] == 3
    assert found["Pod"] == 4
    assert found["PodDisruptionBudget"] == 1
    assert not {"Ingress", "ServiceMonitor", "PrometheusRule", "Certificate", "ScaledObject"} & found.keys()


def test_pods_that_scale_themselves_have_no_number() -> None:
    for name in SWITCHES:
        rendered = rendering(name)
        for component in SERVICES:
            assert ("replicas" in rendered.pod(component).owner["spec"]) != scales_itself(rendered, component)


@pytest.mark.parametrize("name", ["hpa", "keda"])
def test_autoscaling(name: str) -> None:
    rendered = rendering(name)
    scalers = rendered.of("HorizontalPodAutoscaler" if name == "hpa" else "ScaledObject")
    assert len(scalers) == len(SCALED)
    for scaler in scalers:
        target = scaler["spec"]["scaleTargetRef"]
        assert (target["kind"], target["name"]) in rendered.names


def test_all_pods_and_keda_trust_the_named_authorities() -> None:
    rendered = rendering("trust")
    assert {pod.component for pod in rendered.pods} == {*SERVICES, "test"}
    for pod in rendered.pods:
        for container in pod.containers:
            assert {"name": "SSL_CERT_FILE", "value": "/etc/quatrain/trust/ca.crt"} in container["env"], pod.name
            assert "/etc/quatrain/trust" in {mount["mountPath"] for mount in container["volumeMounts"]}
        (volume,) = (volume for volume in pod.spec["volumes"] if volume["name"] == "trust")
        assert volume["secret"]["secretName"] == "authorities"
    (scaled,) = rendered.of("ScaledObject")
    (shown,) = rendered.of("TriggerAuthentication")
    assert scaled["spec"]["triggers"][0]["authenticationRef"]["name"] == shown["metadata"]["name"]
    assert shown["spec"]["secretTargetRef"] == [{"parameter": "ca", "name": "authorities", "key": "ca.crt"}]


def test_keda_trusts_nobody_more_where_redis_speaks_plaintext() -> None:
    rendered = render({"trust": {"existingSecret": "authorities"}, "rollout": {"autoscaling": {"kind": "keda"}}})
    (shown,) = rendered.of("TriggerAuthentication")
    assert [each["parameter"] for each in shown["spec"]["secretTargetRef"]] == ["password"]


def test_keda_reads_the_stream_that_the_workers_read() -> None:
    from quatrain.queue.names import GROUP, tasks_key

    rendered = render({"pool": "large", "generation": {"autoscaling": {"kind": "keda", "lag": 7}}})
    (scaled,) = rendered.of("ScaledObject")
    (trigger,) = scaled["spec"]["triggers"]
    assert trigger["type"] == "redis-streams"
    told = trigger["metadata"]
    assert (told["stream"], told["consumerGroup"], told["lagCount"]) == (tasks_key("large"), GROUP, "7")
    assert rendered.config("rollout")["rollout"]["pool"] == "large"
    # Pending entries never wake anything from none, and the length counts what is in work.
    assert not {"pendingEntriesCount", "streamLength"} & told.keys()
    (authentication,) = rendered.of("TriggerAuthentication")
    assert trigger["authenticationRef"]["name"] == authentication["metadata"]["name"]
    (reference,) = authentication["spec"]["secretTargetRef"]
    assert reference["key"] in rendered.get("Secret", reference["name"])["data"]


def test_keda_reads_as_the_named_user() -> None:
    redis = {"address": "redis:6380", "existingSecret": "redis", "username": "keda"}
    scaling = {"generation": {"autoscaling": {"kind": "keda"}}}
    (scaled,) = render({"externalRedis": redis, **scaling}).of("ScaledObject")
    assert scaled["spec"]["triggers"][0]["metadata"]["username"] == "keda"
    (bundled,) = render(scaling).of("ScaledObject")
    assert "username" not in bundled["spec"]["triggers"][0]["metadata"]


def test_bundled_servers_go_when_others_are_named() -> None:
    for name, part in (("external-redis", "valkey"), ("external-storage", "minio")):
        rendered = rendering(name)
        left = [each for each in rendered.objects if each["metadata"]["name"].endswith(f"-{part}")]
        assert left == []
        assert "--make-bucket" in rendered.pod("learner").containers[0]["args"] or part == "minio"


def test_claims_stay() -> None:
    for name in ("valkey", "minio"):
        there = rendering("default").get("StatefulSet", f"quatrain-{name}")["spec"]
        assert there["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
        assert len(there["volumeClaimTemplates"]) == 1
        # Claims are immutable: a label with a version would make the next upgrade fail.
        assert "labels" not in there["volumeClaimTemplates"][0]["metadata"]
        without = rendering("no-volumes").get("StatefulSet", f"quatrain-{name}")["spec"]
        assert "volumeClaimTemplates" not in without
    for secret in rendering("default").of("Secret"):
        assert secret["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_budgets_where_more_than_one_pod_runs() -> None:
    assert {each["metadata"]["name"] for each in rendering("many").of("PodDisruptionBudget")} >= {
        f"quatrain-{name}" for name in SERVICES if name != "orchestrator"
    }
    assert rendering("no-budgets").of("PodDisruptionBudget") == []
    assert len(rendering("hpa").of("PodDisruptionBudget")) == 1 + len(SCALED)
    assert len(rendering("keda").of("PodDisruptionBudget")) == 1
    for budget in rendering("many").of("PodDisruptionBudget"):
        assert budget["spec"]["maxUnavailable"] == 1
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_headless_but_for_the_api() -> None:
    rendered = rendering("default")
    for component in SERVICES:
        service = rendered.get("Service", f"quatrain-{component}")
        assert (service["spec"].get("clusterIP") == "None") == (component != "orchestrator")
        (port,) = [each for each in service["spec"]["ports"] if each["name"] == "grpc"]
        assert port["appProtocol"] == "kubernetes.io/h2c"
    assert rendering("load-balancer").get("Service", "quatrain-orchestrator")["spec"]["type"] == "LoadBalancer"
    learner = rendered.get("StatefulSet", "quatrain-learner")["spec"]
    assert (learner["serviceName"], learner["podManagementPolicy"]) == ("quatrain-learner", "Parallel")


def test_a_learner_of_several_pods_is_a_group() -> None:
    rendered = rendering("ranks")
    group = rendered.get("LeaderWorkerSet", "quatrain-learner-ranks")
    assert ("StatefulSet", "quatrain-learner") not in rendered.names
    assert group["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
    assert group["spec"]["replicas"] == 3
    assert group["spec"]["networkConfig"] == {"subdomainPolicy": "Shared"}
    template = group["spec"]["leaderWorkerTemplate"]
    assert (template["size"], template["restartPolicy"]) == (2, "RecreateGroupOnPodRestart")
    main = rendered.pod("learner").main
    assert main["resources"]["limits"]["nvidia.com/gpu"] == 1
    # Of the pods behind the Service only rank 0 knows the learner's service.
    assert main["readinessProbe"]["grpc"] == {"port": 50060, "service": ""}
    assert rendered.config("learner")["learner"] == {"ranks": 2}
    values = {variable["name"]: variable.get("value") for variable in main["env"]}
    assert values["QUATRAIN_LEARNER__RANK"] == "$(LWS_WORKER_INDEX)"
    assert values["QUATRAIN_LEARNER__RENDEZVOUS"] == "$(LWS_LEADER_ADDRESS):29500"
    # The controller makes a Service named as the group; callers have the chart's own.
    callers = rendered.get("Service", "quatrain-learner")["spec"]["selector"]
    assert callers["leaderworkerset.sigs.k8s.io/worker-index"] == "0"
    assert ("Service", "quatrain-learner-ranks") not in rendered.names
    assert ("PodDisruptionBudget", "quatrain-learner") in rendered.names


def test_updates() -> None:
    rendered = rendering("recreate")
    assert rendered.get("Deployment", "quatrain-generation")["spec"]["strategy"] == {"type": "Recreate"}
    assert rendered.get("StatefulSet", "quatrain-learner")["spec"]["updateStrategy"] == {"type": "OnDelete"}
    scarce = rendering("gpu").get("Deployment", "quatrain-generation")["spec"]["strategy"]["rollingUpdate"]
    assert scarce == {"maxSurge": 0, "maxUnavailable": 1}


def test_one_node_with_eight_gpus_is_full() -> None:
    total = 0
    for pod in rendering("gpu").pods:
        if pod.owner["kind"] in WORKLOADS:
            total += pod.owner["spec"]["replicas"] * pod.main["resources"]["limits"].get("nvidia.com/gpu", 0)
            device = "cuda" if pod.component in ("generation", "reward", "reference", "learner") else "cpu"
            if pod.component in SERVICES:
                assert rendering("gpu").config(pod.component)["compute"]["device"] == device
    assert total == 8


def test_tests_and_accounts_and_further_objects() -> None:
    assert not rendering("no-tests").of("Pod")
    assert not rendering("no-account").of("ServiceAccount")
    assert rendering("no-account").pod("reward").spec["serviceAccountName"] == "default"
    assert ("ConfigMap", "quatrain-more") in rendering("extra").names
    for pod in rendering("default").of("Pod"):
        assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
        assert pod["spec"]["restartPolicy"] == "Never"


def test_notes_say_what_to_do() -> None:
    notes = helm("install", "one", str(CHART), "--dry-run=client", "--namespace=two", "--set=tls.enabled=true")
    notes = notes[notes.index("NOTES:") :]
    assert "helm test one -n two" in notes
    assert "svc/one-quatrain-orchestrator" in notes
    assert "get secret one-quatrain-tokens" in notes
    assert "QUATRAIN_CA" in notes
    assert "quatrain job submit" in notes
