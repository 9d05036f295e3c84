"""Warns of values far from those of published recipes. A warning stops nothing: tiny test models need large rates.

Ranges are wide: some hundred times what the recipes of TRL (learning rate 3e-6, kl_coef 0.05, cliprange 0.2,
temperature 0.7), OpenRLHF (actor 5e-7, critic 9e-6, init_kl_coef 0.01, value_clip 0.5) and verl (actor 1e-6, critic
1e-5, clip_ratio 0.2, one epoch) use.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from quatrain.jobspec.sections import JobSpec


@dataclass(frozen=True)
class UsualRange:
    """The values of a field that raise no eyebrow, what published recipes use, and what happens outside."""

    field: str
    least: float
    most: float
    recipes: str
    outside: str


USUAL = (
    UsualRange("ppo.optimizer.policy_lr", 1e-9, 3e-3, "5e-7 to 1e-5", "the policy learns nothing, or falls apart"),
    UsualRange("ppo.optimizer.value_lr", 1e-8, 3e-2, "1e-6 to 1e-4", "values are wrong, and so are advantages"),
    UsualRange("sft.learning_rate", 1e-8, 1e-2, "1e-6 to 1e-4", "the model learns nothing, or forgets its language"),
    UsualRange("reward.learning_rate", 1e-8, 1e-2, "1e-6 to 1e-4", "the reward model learns nothing, or diverges"),
    UsualRange("ppo.kl.coef", 1e-6, 5.0, "0.001 to 0.2", "the policy drifts from its reference, or never leaves it"),
    UsualRange("ppo.clip.low", 0.01, 0.9, "0.2", "steps are no longer bounded, or too small to learn"),
    UsualRange("ppo.clip.high", 0.01, 1.0, "0.2 to 0.3", "steps are no longer bounded, or too small to learn"),
    UsualRange("ppo.clip.value", 0.01, 50.0, "0.2 to 0.5", "the value model hardly moves, or is not clipped at all"),
    UsualRange("ppo.generation.temperature", 0.3, 2.0, "0.6 to 1.0", "samples are all alike, or noise"),
    UsualRange("ppo.optimizer.epochs", 1, 20, "1 to 4", "the policy is fitted to a few old samples"),
    UsualRange("ppo.advantage.gamma", 0.9, 1.0, "1.0", "rewards at the end of a completion do not reach its beginning"),
    UsualRange("ppo.advantage.lam", 0.5, 1.0, "0.95 to 1.0", "rewards at the end do not reach the beginning"),
    UsualRange("ppo.entropy_coef", 0.0, 0.1, "0 to 0.01", "the policy is driven towards noise"),
    UsualRange("ppo.samples_per_prompt", 1, 256, "1 to 16", "a step is long and sees few prompts"),
    UsualRange("sft.epochs", 1, 30, "1 to 3", "the model learns its rows by heart"),
    UsualRange("reward.epochs", 1, 30, "1 to 2", "the reward model learns its pairs by heart"),
)


def range_warnings(spec: JobSpec) -> list[str]:
    """Return a warning for each value far outside the usual, with what published recipes use."""
    return [*_ranges(spec), *_together(spec)]


def _ranges(spec: JobSpec) -> Iterator[str]:
    for usual in USUAL:
        value = _value(spec, usual.field)
        if not isinstance(value, int | float) or usual.least <= value <= usual.most:
            continue
        # A rate of 0 freezes a model on purpose, and a section without training has defaults that mean nothing.
        if value == 0 and usual.field.endswith("_lr"):
            continue
        if usual.field.startswith("reward.") and spec.reward.data is None:
            continue
        yield f"{usual.field} {value:g} is far outside the usual (published recipes: {usual.recipes}): {usual.outside}"


def _value(spec: JobSpec, path: str) -> object:
    """Return the value of a field; None where its section is absent."""
    value: object = spec
    for name in path.split("."):
        value = getattr(value, name, None)
    return value


def _together(spec: JobSpec) -> Iterator[str]:
    if spec.ppo.sequences_per_step < 4 and spec.ppo.advantage.whiten:
        yield (
            f"ppo: a step has {spec.ppo.sequences_per_step} sequences, so whitened advantages are mostly noise; "
            "raise ppo.prompts_per_step or ppo.samples_per_prompt"
        )
