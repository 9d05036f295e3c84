"""Rules that join several fields of a spec. Each yields violations; all of them are reported at once."""

import difflib
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePath

from quatrain.errors import FieldViolation
from quatrain.jobspec.metric_names import METRIC_NAMES, is_metric
from quatrain.jobspec.sections import DATA_SETS, PAIR_FIELDS, DataSpec, JobSpec, KlSpec, PpoSpec, RewardSpec

_SOURCES = ("data", "model", "functions", "service")


def violations(spec: JobSpec) -> list[FieldViolation]:
    """Return all violations that no single field shows; empty when the spec is sound."""
    return [
        *_data(spec),
        *_reward(spec.reward, "reward", _SOURCES),
        *_ppo(spec.ppo),
        *_kl(spec.ppo.kl, spec.ppo.sequences_per_step),
        *_value_init(spec),
        *_keep_best(spec),
    ]


def _data(spec: JobSpec) -> Iterator[FieldViolation]:
    for path in DATA_SETS:
        stage, _, field = path.partition(".")
        section = getattr(spec, stage)
        data: DataSpec | None = None if section is None else getattr(section, field)
        # Ignoring the split would train on the wrong rows without a warning.
        if data and data.split is not None and not data.more_uris and _is_one_file(data.uri):
            yield FieldViolation(
                f"{path}.split", f"{data.split!r}: {data.uri} is one file without splits; leave it out"
            )
        if data and data.names and len(data.names) != len(data.uris):
            yield FieldViolation(f"{path}.names", f"{len(data.names)} names for {len(data.uris)} files; leave it out")


def _is_one_file(uri: str) -> bool:
    """Return whether a URI names a single file: an object of a store, or a path without a pattern that has a suffix."""
    if uri.startswith(("sha256:", "s3://")):
        return True
    return "://" not in uri and not set(uri) & set("*?[") and PurePath(uri).suffix != ""


def _reward(reward: RewardSpec, path: str, sources: tuple[str, ...]) -> Iterator[FieldViolation]:
    given = [name for name in _SOURCES if getattr(reward, name)]
    allowed = ", ".join(sources[:-1]) + " or " + sources[-1]
    if not set(given) <= set(sources):
        yield FieldViolation(f"{path}.data", f"no reward model is trained here; give one of {allowed}")
    elif len(given) != 1:
        what = f"{' and '.join(given)} are given" if given else "none is given"
        yield FieldViolation(path, f"exactly one source of scores is needed ({allowed}), {what}")
    if reward.data is None:
        for name in PAIR_FIELDS:
            if name in reward.model_fields_set:
                value = getattr(reward, name)
                yield FieldViolation(
                    f"{path}.{name}",
                    f"{value!r} belongs to a reward model trained from {path}.data, which is absent; leave it out",
                )
    if reward.scale == 0.0:
        yield FieldViolation(f"{path}.scale", "0.0 would erase every score; any other number is allowed")
    if reward.service is not None and not 0 < int(reward.service.rpartition(":")[2]) < 65536:
        yield FieldViolation(f"{path}.service", f"{reward.service!r}: the port must be 1 to 65535")
    for term, count in Counter(function.term for function in reward.functions).items():
        if count > 1:
            yield FieldViolation(
                f"{path}.functions", f"{count} functions share the term name {term!r}; give each its own `name`"
            )


def _ppo(ppo: PpoSpec) -> Iterator[FieldViolation]:
    generation, sequences = ppo.generation, ppo.sequences_per_step
    if ppo.eval_gold is not None:
        yield from _reward(ppo.eval_gold, "ppo.eval_gold", _SOURCES[1:])
        if ppo.eval_prompts is None:
            yield FieldViolation("ppo.eval_gold", "there is nothing to evaluate on; give ppo.eval_prompts too")
    if generation.ignore_eos and generation.missing_eos_penalty > 0.0:
        yield FieldViolation(
            "ppo.generation.missing_eos_penalty",
            f"{generation.missing_eos_penalty!r} cannot be used with ignore_eos: true, where no completion ends early; "
            "leave it out or set 0",
        )
    if ppo.optimizer.minibatches > sequences:
        yield FieldViolation(
            "ppo.optimizer.minibatches",
            f"{ppo.optimizer.minibatches} is more than the {sequences} sequences of a step "
            "(prompts_per_step x samples_per_prompt)",
        )


def _kl(kl: KlSpec, sequences: int) -> Iterator[FieldViolation]:
    if kl.placement == "reward" and kl.estimator != "k1":
        yield FieldViolation(
            "ppo.kl.estimator",
            f"{kl.estimator!r} in the reward has no stable fixed point at the KL-regularised optimum; "
            "use 'k1', or placement: loss",
        )
    if kl.placement == "loss":
        if kl.estimator == "k1":
            yield FieldViolation(
                "ppo.kl.estimator", "'k1' in the loss has zero expected gradient; use 'k2' (or 'k3', forward KL)"
            )
        if not kl.acknowledge_rescaled_beta:
            yield FieldViolation(
                "ppo.kl.placement",
                "'loss' with whitened advantages multiplies beta by the spread of the advantages; "
                "set acknowledge_rescaled_beta: true to accept this, or use 'reward'",
            )
    if kl.controller == "adaptive":
        if kl.target is None:
            yield FieldViolation(
                "ppo.kl.target", "is required with controller: adaptive (KL in nats a sequence, above 0)"
            )
        if kl.horizon <= sequences:
            yield FieldViolation(
                "ppo.kl.horizon",
                f"{kl.horizon!r} must be above the {sequences} sequences of a step with controller: adaptive",
            )
        if kl.coef == 0.0:
            yield FieldViolation("ppo.kl.coef", "0.0 stays 0 forever with controller: adaptive; start above 0")


def _value_init(spec: JobSpec) -> Iterator[FieldViolation]:
    if spec.ppo.value_init == "reward" and spec.reward.data is None and spec.reward.model is None:
        yield FieldViolation(
            "ppo.value_init", "'reward' needs a reward model (reward.data or reward.model); use 'sft' or leave it out"
        )


def _keep_best(spec: JobSpec) -> Iterator[FieldViolation]:
    metric = (spec.checkpoint.keep_best or "").removeprefix("-")
    if metric and not is_metric(metric):
        near = difflib.get_close_matches(metric, METRIC_NAMES, n=1)
        meant = f"; did you mean {near[0]!r}?" if near else "; `quatrain job metrics JOB -o name` lists those of a job"
        yield FieldViolation("checkpoint.keep_best", f"no step has a metric {metric!r}{meant}")
    if metric.startswith("eval/") and spec.ppo.eval_prompts is None:
        yield FieldViolation("checkpoint.keep_best", f"{metric!r} is never measured without ppo.eval_prompts")
