"""Targets in gRPC's words and the service config."""

import json

import pytest

from quatrain.errors import InvalidInput
from quatrain.rpc.client.channel import grpc_target, service_config


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("host:1", "dns:///host:1"),
        ("[::1]:1", "dns:///[::1]:1"),
        ("dns:///generation.ns.svc:50051", "dns:///generation.ns.svc:50051"),
        ("127.0.0.1:1, localhost:2", "ipv4:127.0.0.1:1,127.0.0.1:2"),
        ("[::1]:1,[::2]:2", "ipv6:[::1]:1,[::2]:2"),
    ],
)
def test_targets(target: str, expected: str) -> None:
    assert grpc_target(target) == expected


@pytest.mark.parametrize(
    "target", ["", "host", "host:0", "a:1,b:2", "127.0.0.1:1,[::1]:2", "targets-file:/x", "dns:///x"]
)
def test_other_targets_are_refused(target: str) -> None:
    with pytest.raises(InvalidInput):
        grpc_target(target)


def test_only_idempotent_services_are_retried() -> None:
    generation = json.loads(service_config("quatrain.v1.GenerationService"))
    learner = json.loads(service_config("quatrain.v1.LearnerService"))

    assert generation["methodConfig"][0]["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]
    assert learner == {"loadBalancingConfig": [{"round_robin": {}}]}
