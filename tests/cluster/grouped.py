"""A run with learners of two pods: LeaderWorkerSet starts them, and starts both again when one of them is killed."""

from collections.abc import Sequence
from dataclasses import replace

from tests.cluster.api import is_ready
from tests.cluster.groups import run_lws
from tests.cluster.release import Release
from tests.cluster.release_scenarios import ReleaseFactory
from tests.cluster.trial import Client, Run, run_job

RANKS = 2
READY_DEADLINE = 300.0


def grouped(factory: ReleaseFactory) -> Run:
    """Two jobs with the same weights, one of which loses a pod of its learner. One rank would round differently."""
    release = factory.release("grouped", f"--set=learner.ranks={RANKS}")
    with run_lws(factory.node.site, factory.node.cluster), factory.removed_after(release):
        release.install()
        client = Client(release, factory.folder / "grouped")
        whole = run_job(client, "grouped", lambda job: [])
        run = run_job(client, "grouped", lambda job: lose_one(release, client, job))
        assert run.weights == whole.weights, "the killed learner's job has other weights"
        release.uninstall()  # while the controller is there to let go of its pods
    return replace(run, weights=None)


def lose_one(release: Release, client: Client, job: str) -> Sequence[str]:
    """Kills the pod that only follows; the one that serves has to be another one afterwards, too."""
    client.reach(job, 10)
    step, before = client.job(job)["step"], uids(release)
    follower = max(release.pods("learner"))
    release.cluster.kubectl("delete", "pod", follower, "-n", release.namespace, "--force", "--grace-period=0")
    release.cluster.wait("a new pair", lambda: len(uids(release) - before) == RANKS, READY_DEADLINE)
    client.reach(job, step + 3)
    return [f"learner of {RANKS} pods, the second killed after step {step}, both started again; the weights as without"]


def uids(release: Release) -> set[str]:
    """Of the learner's pods that are ready."""
    return {pod["metadata"]["uid"] for pod in release.objects("pod", "learner") if is_ready(pod)}
