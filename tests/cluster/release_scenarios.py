"""Runs with a release of their own: certificates, an earlier chart, a restored bucket, the commands of the page."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.cluster.disturbances import wait_ready
from tests.cluster.node import Node
from tests.cluster.page import run_section
from tests.cluster.release import CHART, Release
from tests.cluster.trial import Client, Run, open_model, run_job

EARLIER = Path(__file__).parent / "earlier" / "quatrain-0.0.9.tgz"
VALUES = (f"--values={CHART / 'values-cpu.yaml'}",)
INSTALL_SECONDS = 600


@dataclass(frozen=True)
class Ground:
    """Where releases are made."""

    node: Node
    folder: Path

    def release(self, namespace: str, *values: str) -> Release:
        """A release that is not installed yet, in a namespace that enforces Pod Security `restricted`."""
        cluster = self.node.cluster
        made = cluster.namespace(namespace)
        return Release(cluster, made, values=(*VALUES, *values), seconds=INSTALL_SECONDS)

    @contextmanager
    def only_now(self, release: Release) -> Iterator[None]:
        """Whatever happened, nothing of the release stays."""
        try:
            yield
        except AssertionError as error:
            raise AssertionError(f"{error}\n{release.state()}") from error
        finally:
            self.node.cluster.drop_namespace(release.namespace)


def secured(ground: Ground) -> Run:
    """Mutual TLS by certificates of the chart's own authority, which are exchanged while a job runs.

    Another release stands beside it in its own namespace, and nothing happens to that one.
    """
    others = untouched(ground)
    release = ground.release("secured", "--set=tls.enabled=true")
    with ground.only_now(release):
        release.install()
        release.test()
        client = Client(release, ground.folder / "secured", tls=True)
        refused = replace(client, tls=False).try_quatrain("job", "list")
        assert refused.code != 0, "the API answered without TLS"
        run = run_job(client, "secured", lambda job: renew(release, client, job))
    assert untouched(ground) == others, "another release's pods were exchanged or restarted"
    return run


def renew(release: Release, client: Client, job: str) -> Sequence[str]:
    """A new authority and new certificates; then a pod that knows only those has to be reached by the others."""
    before = release.secret("tls")
    release.cluster.kubectl("delete", "secret", f"{release.full_name}-tls", "-n", release.namespace)
    release.upgrade()
    assert release.secret("tls")["ca.crt"] != before["ca.crt"], "the authority is the old one"
    release.cluster.wait("the API to show the new certificate", lambda: answers(client, job), 300.0)
    client.reach(job, client.job(job)["step"] + 1)
    step = client.job(job)["step"]
    pod = release.pods("reward")[0]
    release.cluster.kubectl("delete", "pod", pod, "-n", release.namespace, "--force", "--grace-period=0")
    wait_ready(release, "reward")
    client.reach(job, step + 3)
    return [f"authority and certificates exchanged, then reward killed after step {step}"]


def answers(client: Client, job: str) -> bool:
    """Whether the API is reached."""
    return client.try_quatrain("job", "get", job, "-o", "json").code == 0


def from_earlier(ground: Ground) -> Run:
    """From an earlier chart to the present one, back and forth again, while a job runs."""
    release = ground.release("earlier")
    earlier = replace(release, chart=EARLIER)
    with ground.only_now(release):
        earlier.install()
        client = Client(release, ground.folder / "earlier")
        kept = what_stays(release)

        def exchange(job: str) -> Sequence[str]:
            for revision in (None, 1, None):
                release.rollback(revision) if revision else release.upgrade()
                assert what_stays(release) == kept, "tokens, passwords or volumes are others"
                client.reach(job, client.job(job)["step"] + 1)
            return ["chart 0.0.9 upgraded to the present one, rolled back, upgraded again"]

        run = run_job(client, "from-earlier", exchange)
        release.test()
    return run


def restored(ground: Ground) -> Run:
    """Backup and restore by the page's commands: a new release goes on with the job of one that is gone with all."""
    release, folder = ground.release("restored"), ground.folder / "restored"
    with ground.only_now(release):
        release.install()
        client = Client(release, folder / "client")
        done = client.submit("ppo.steps=2")
        client.watch(done)
        weights = client.weights(done)

        def lose(job: str) -> Sequence[str]:
            client.reach(job, 20)
            token = release.secret("tokens")
            run_section(release.cluster, release.namespace, "Backup", folder)
            step = client.job(job)["step"]
            release.uninstall()
            selector = ("-l", release.selector, "-n", release.namespace)
            release.cluster.kubectl("delete", "pvc,secret", *selector)
            run_section(release.cluster, release.namespace, "Restore", folder)
            assert release.secret("tokens") != token, "the Secrets were not lost"
            release.cluster.wait("the API", lambda: answers(client, job), 120.0)
            found = client.job(job)
            assert found["attempt"] >= 1, found
            assert client.weights(done) == weights, "the model of the finished job is another one"
            return [f"backup at step {step}, all deleted, restored into a new release"]

        return run_job(client, "restored", lose)


def documented(ground: Ground) -> Run:
    """The page from nothing to a finished job, then its upgrade, then certificates, by its own commands."""
    began = time.monotonic()
    release, folder = ground.release("documented"), ground.folder / "documented"
    with ground.only_now(release):
        run_section(release.cluster, release.namespace, "A laptop's cluster (kind)", folder)
        (job,) = json.loads(Client(release, folder / "client").quatrain("job", "list", "-o", "json"))
        open_model(folder / "my-model")
        for heading in ("Upgrade", "Certificates"):
            run_section(release.cluster, release.namespace, heading, folder)
    note = "the commands of this page, from the installation to certificates; the example's own size"
    return Run("documented", job["state"], None, time.monotonic() - began, [note])


def untouched(ground: Ground) -> set[tuple[str, str, int]]:
    """Pods of the release that all others stand beside, with how often their containers were restarted."""
    pods = ground.node.cluster.objects("pod", "quatrain", "app.kubernetes.io/instance=quatrain")
    return {
        (pod["metadata"]["name"], pod["metadata"]["uid"], status["restartCount"])
        for pod in pods
        if "helm.sh/hook" not in pod["metadata"].get("annotations", {})
        for status in pod["status"].get("containerStatuses", [])
    }


def what_stays(release: Release) -> tuple[object, ...]:
    """Token and passwords, and which volumes hold the data."""
    claims = sorted((claim["metadata"]["name"], claim["metadata"]["uid"]) for claim in release.objects("pvc"))
    return release.secret("tokens"), release.secret("minio"), release.secret("valkey"), tuple(claims)


JOURNEYS: dict[str, Callable[[Ground], Run]] = {
    "secured": secured,
    "from-earlier": from_earlier,
    "restored": restored,
    "documented": documented,
}
