"""Client channels.

A call that cannot be delivered fails fast (waitForReady off): the caller, who knows its deadline, decides what to do.
gRPC itself retries calls of idempotent services while the address answers UNAVAILABLE, within the deadline.
"""

import ipaddress
import json
from collections.abc import Sequence

import grpc.aio

from quatrain.config import ProcessConfig
from quatrain.errors import InvalidInput
from quatrain.json_values import JsonObject
from quatrain.rpc.addresses import MIB, check_address
from quatrain.rpc.certificates import CertificateFiles, Certificates, ChannelTls
from quatrain.rpc.client.rotation import Options, open_transport

MAX_MESSAGE_BYTES = 64 * MIB

# Every method of these services may be sent twice. A learner is a stateful peer whose owner decides about each retry;
# uploads resume by offset.
IDEMPOTENT_SERVICES = frozenset(
    {
        "quatrain.v1.GenerationService",
        "quatrain.v1.RewardService",
        "quatrain.v1.ReferenceService",
        "quatrain.v1.JobService",
    }
)


def open_channel(target: str, *, service: str, tls: ChannelTls | None = None) -> grpc.aio.Channel:
    """Return a channel to all addresses of a target, in turn. It connects lazily.

    `target` is `host:port`, `ip:port,ip:port,...` or `dns:///name:port`; `service` is the full name of the service that
    is called, and decides about retries; without `tls` in plaintext. Raises InvalidInput for another form of target.
    """
    options: Options = [*channel_options(), ("grpc.service_config", service_config(service))]
    return open_transport(grpc_target(target), options, tls)


def channel_tls(config: ProcessConfig) -> ChannelTls | None:
    """Return TLS of channels to the services, None without certificates. Raises InvalidInput."""
    tls = config.tls
    if tls.cert is None:
        return None
    return ChannelTls(Certificates(CertificateFiles(tls.cert, tls.key, tls.ca)), tls.server_name)


def grpc_target(target: str) -> str:
    """Return the target in gRPC's own words. Raises InvalidInput if it has no port or is of an unknown form."""
    if target.startswith("targets-file:"):
        raise InvalidInput(f"{target}: a file of targets is followed by a TargetPool, not by a single channel")
    if target.startswith("dns:///") and "," not in target:
        check_address(target.removeprefix("dns:///"), target)
        return target
    addresses = [part.strip() for part in target.split(",")]
    for address in addresses:
        check_address(address, target)
    if len(addresses) == 1:
        return f"dns:///{addresses[0]}"
    return _multi_address(addresses, target)


def _multi_address(addresses: Sequence[str], target: str) -> str:
    hosts = [address.rpartition(":")[0].strip("[]") for address in addresses]
    numeric = ["127.0.0.1" if host == "localhost" else host for host in hosts]
    try:
        versions = {ipaddress.ip_address(host).version for host in numeric}
    except ValueError as error:
        raise InvalidInput(f"{target}: a list takes IP addresses; give one dns:///name:port for names") from error
    if len(versions) != 1:
        raise InvalidInput(f"{target}: IPv4 and IPv6 addresses cannot stand in one list")
    if versions == {6}:
        return "ipv6:" + ",".join(addresses)
    ports = [address.rpartition(":")[2] for address in addresses]
    return "ipv4:" + ",".join(f"{host}:{port}" for host, port in zip(numeric, ports, strict=True))


def service_config(service: str) -> str:
    """Return gRPC's service config as JSON text: round robin, and retries of UNAVAILABLE for idempotent services."""
    config: JsonObject = {"loadBalancingConfig": [{"round_robin": {}}]}
    if service in IDEMPOTENT_SERVICES:
        config["methodConfig"] = [
            {
                "name": [{"service": service}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "2s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
        # Stops retrying where most calls fail, so that a service that comes back is not flooded.
        config["retryThrottling"] = {"maxTokens": 10, "tokenRatio": 0.1}
    return json.dumps(config)


def channel_options() -> list[tuple[str, int]]:
    """Return the options of every channel."""
    return [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.ping_timeout_ms", 20_000),  # what gRPC's core really uses (seen in 1.80); its default is 60 s
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 3_000),  # also the time that one attempt to connect may take
        ("grpc.max_reconnect_backoff_ms", 5_000),
        # Names are looked up again at most this often, so that replicas behind a name are found within seconds.
        ("grpc.dns_min_time_between_resolutions_ms", 2_000),
        # The services are inside the deployment; a proxy from the environment is meant for the internet.
        ("grpc.enable_http_proxy", 0),
    ]
