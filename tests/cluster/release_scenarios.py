"""Runs with a release of their own: certificates, an older chart, a restored bucket, the commands of docs/deploy.md."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.cluster.deploy_commands import run_section
from tests.cluster.disturbances import wait_ready
from tests.cluster.node import Node
from tests.cluster.release import CHART, Release
from tests.cluster.trial import Client, Run, open_model, run_job

OLD_CHART = Path(__file__).parent / "old_chart" / "quatrain-0.0.9.tgz"
VALUES = (f"--values={CHART / 'values-cpu.yaml'}",)
INSTALL_SECONDS = 600


@dataclass(frozen=True)
class ReleaseFactory:
    """Makes releases on a node."""

    node: Node
    folder: Path

    def release(self, namespace: str, *values: str) -> Release:
        """Return a release that is not installed yet, in a namespace that enforces Pod Security `restricted`."""
        cluster = self.node.cluster
        made = cluster.namespace(namespace)
        return Release(cluster, made, values=(*VALUES, *values), seconds=INSTALL_SECONDS)

    @contextmanager
    def removed_after(self, release: Release) -> Iterator[None]:
        """Remove the release at the end of the block, whatever happened in it."""
        try:
            yield
        except AssertionError as error:
            raise AssertionError(f"{error}\n{release.state()}") from error
        finally:
            self.node.cluster.drop_namespace(release.namespace)


def secured(factory: ReleaseFactory) -> Run:
    """Use mutual TLS by certificates of the chart's own authority, and replace them while a job runs.

    Another release runs in a namespace of its own, and nothing may happen to that one.
    """
    others = untouched(factory)
    release = factory.release("secured", "--set=tls.enabled=true")
    with factory.removed_after(release):
        release.install()
        release.test()
        client = Client(release, factory.folder / "secured", tls=True)
        refused = replace(client, tls=False).try_quatrain("job", "list")
        assert refused.code != 0, "the API answered without TLS"
        run = run_job(client, "secured", lambda job: renew(release, client, job))
    assert untouched(factory) == others, "another release's pods were exchanged or restarted"
    return run


def renew(release: Release, client: Client, job: str) -> Sequence[str]:
    """Replace authority and certificates; then kill a pod: the new one, which knows only those, must be reached."""
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
    """Return whether the API answers."""
    return client.try_quatrain("job", "get", job, "-o", "json").code == 0


def from_earlier(factory: ReleaseFactory) -> Run:
    """Upgrade from an older chart to the present one, roll back and upgrade again, while a job runs."""
    release = factory.release("old-chart")
    old = replace(release, chart=OLD_CHART)
    with factory.removed_after(release):
        old.install()
        client = Client(release, factory.folder / "old-chart")
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


def restored(factory: ReleaseFactory) -> Run:
    """Back up and restore by the commands of docs/deploy.md: a new release continues the job of a deleted one."""
    release, folder = factory.release("restored"), factory.folder / "restored"
    with factory.removed_after(release):
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


def documented(factory: ReleaseFactory) -> Run:
    """Run the commands of docs/deploy.md from nothing to a finished job, then its upgrade, then its certificates."""
    began = time.monotonic()
    release, folder = factory.release("documented"), factory.folder / "documented"
    with factory.removed_after(release):
        run_section(release.cluster, release.namespace, "A laptop's cluster (kind)", folder)
        (job,) = json.loads(Client(release, folder / "client").quatrain("job", "list", "-o", "json"))
        open_model(folder / "my-model")
        for heading in ("Upgrade", "Certificates"):
            run_section(release.cluster, release.namespace, heading, folder)
    note = "the commands of this page, from the installation to certificates; the example's own size"
    return Run("documented", job["state"], None, time.monotonic() - began, [note])


def untouched(factory: ReleaseFactory) -> set[tuple[str, str, int]]:
    """Return the pods of the release that all runs share, with how often their containers were restarted."""
    pods = factory.node.cluster.objects("pod", "quatrain", "app.kubernetes.io/instance=quatrain")
    return {
        (pod["metadata"]["name"], pod["metadata"]["uid"], status["restartCount"])
        for pod in pods
        if "helm.sh/hook" not in pod["metadata"].get("annotations", {})
        for status in pod["status"].get("containerStatuses", [])
    }


def what_stays(release: Release) -> tuple[object, ...]:
    """Return what an upgrade must keep: token, passwords, and which volumes hold the data."""
    claims = sorted((claim["metadata"]["name"], claim["metadata"]["uid"]) for claim in release.objects("pvc"))
    return release.secret("tokens"), release.secret("minio"), release.secret("valkey"), tuple(claims)


SCENARIOS: dict[str, Callable[[ReleaseFactory], Run]] = {
    "secured": secured,
    "from-earlier": from_earlier,
    "restored": restored,
    "documented": documented,
}
