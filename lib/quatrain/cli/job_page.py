"""What `job get` shows of one job: its head, what is wrong, and the metrics that matter, each text once."""

from quatrain.cli.output import hint, number, plain, print_fields
from quatrain.client import Job
from quatrain.local.home import read_endpoint, state_folder

# What a person looks at first, in this order; a stage whose metrics have other names shows its own first ones.
MAIN_METRICS = (
    "reward/score_mean",
    "reward/score_std",
    "kl/ref_seq",
    "policy/entropy",
    "policy/clip_fraction",
    "policy/ratio_max",
    "value/explained_variance",
    "completions/length_mean",
    "completions/eos_rate",
    "eval/score_mean",
    "eval/win_rate",
    "loss",
    "accuracy",
    "margin",
    "optim/learning_rate",
    "optim/grad_norm",
    "time/step",
)
SHOWN = 10


def print_job(job: Job, *, everything: bool) -> None:
    """Print a job for a person; `everything`: all metrics of the newest step."""
    print_fields(_head(job))
    for warning in dict.fromkeys(job.warnings):
        print(f"warning: {plain(warning)}")
    for name, message in job.conditions.items():
        if message not in job.warnings:
            print(f"{plain(name)}: {plain(message)}")
    names = sorted(job.metrics) if everything else main_metrics(job)
    if names:
        print()
        print_fields({name: number(job.metrics[name]) for name in names})
    if len(names) < len(job.metrics):
        hint(f"{len(names)} of {len(job.metrics)} metrics of the newest step: --all shows the others")


def main_metrics(job: Job) -> list[str]:
    """Return the names of the metrics that matter most, the most important first."""
    with_values = [name for name in MAIN_METRICS if job.metrics.get(name) is not None]
    return with_values[:SHOWN] or sorted(job.metrics)[:SHOWN]


def _head(job: Job) -> dict[str, str]:
    error = f"{job.error.reason}: {job.error.message}" if job.error else ""
    # The phase of a job that waits or has failed often repeats its condition or its error.
    told = [error, *([job.error.message] if job.error else []), *job.conditions.values()]
    return {
        "id": job.id,
        "name": "" if job.name == job.id else job.name,
        "forked from": f"{job.forked_from.job}@{job.forked_from.step}" if job.forked_from else "",
        "state": job.state,
        "stage": job.stage,
        "phase": "" if any(job.phase in text for text in told) else job.phase,
        "step": steps_of(job),
        "attempt": str(job.attempt or ""),
        "policy version": str(job.policy_version or ""),
        "created": job.create_time,
        "changed": job.update_time,
        "error": error,
        "model": job.model.uri if job.model else "",
        "weights sha256": job.weights_sha256,
        "reward model": job.reward_model.uri if job.reward_model else "",
        "sft model": job.sft_model.uri if job.sft_model else "",
        "url": url_of(job),
    }


def url_of(job: Job) -> str:
    """Return the address of the job's page on the local stack's dashboard; empty where there is none."""
    endpoint = read_endpoint(state_folder())
    return f"{endpoint.dashboard}/jobs/{job.id}" if endpoint is not None and endpoint.dashboard else ""


def steps_of(job: Job) -> str:
    """Return the step and how many there are; empty before the first stage."""
    if not job.stage:
        return ""
    return f"{job.step}/{job.total_steps}" if job.total_steps else str(job.step)
