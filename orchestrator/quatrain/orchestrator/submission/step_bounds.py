"""What one step of a job may hold at once, checked before the job exists.

A step's samples are in memory together, as expected samples in the orchestrator and as the rows of a sealed batch in
the learner, and those that `ppo.staleness` lets run ahead with them. A chunk's tokens go through the services as one
message. Only operators know how much of that their deployment can hold, so they set the bounds.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from quatrain.config import ProcessConfig
from quatrain.errors import FieldViolation
from quatrain.jobspec import JobSpec, PpoSpec
from quatrain.jobspec.parsing import invalid_spec
from quatrain.rpc.addresses import MIB
from quatrain.rpc.client.channel import MAX_MESSAGE_BYTES

BYTES_OF_TOKEN = 16
"""Bytes that a token takes in the largest message between services: ids, logprobs, and room for texts."""


@dataclass(frozen=True)
class _Work:
    """Samples that are in work at once, the field that asks for them, and how their number comes about."""

    field: str
    samples: int
    text: str


@dataclass(frozen=True)
class StepBounds:
    """The bounds of a deployment."""

    samples: int
    """Samples that are in work at once, those of stale steps among them (orchestrator.max_step_samples)."""
    tokens: int
    """Prompt and completion tokens of them, at their longest (orchestrator.max_step_tokens)."""
    chunk_samples: int
    """Samples of one chunk (orchestrator.max_chunk_samples)."""
    chunk_tokens: int
    """Tokens of one chunk, at their longest: what server.max_message_mib and our own channels let through."""

    @staticmethod
    def of(config: ProcessConfig) -> "StepBounds":
        """Return the bounds of a deployment with this configuration."""
        section = config.orchestrator
        message = min(config.server.max_message_mib * MIB, MAX_MESSAGE_BYTES)
        chunk_tokens = message // BYTES_OF_TOKEN
        return StepBounds(section.max_step_samples, section.max_step_tokens, section.max_chunk_samples, chunk_tokens)

    def check_samples(self, spec: JobSpec) -> None:
        """Raise InvalidSpec, as `check` does, as far as it can be told before any data are read."""
        works = _works(spec, 0)
        _refuse([*self._samples(works), *self._chunk_samples(works, spec.ppo)])

    def check(self, spec: JobSpec, longest_prompt: int, eval_prompts: int) -> None:
        """Raise InvalidSpec with the fields that ask for more than the bounds allow."""
        works = _works(spec, eval_prompts)
        _refuse(
            [
                *self._samples(works),
                *self._chunk_samples(works, spec.ppo),
                *self._tokens(works, longest_prompt, spec.ppo),
            ]
        )

    def _samples(self, works: Sequence[_Work]) -> Iterator[FieldViolation]:
        for work in works:
            if work.samples > self.samples:
                yield FieldViolation(
                    work.field,
                    f"{work.text}: this deployment holds {self.samples} at once; lower it, or ask its operator to "
                    "raise orchestrator.max_step_samples",
                )

    def _chunk_samples(self, works: Sequence[_Work], ppo: PpoSpec) -> Iterator[FieldViolation]:
        rows = _largest_chunk(works, ppo)
        if rows > self.chunk_samples:
            text = (
                f"{rows} samples: a chunk takes {self.chunk_samples}; lower it, or ask the operator of this deployment "
                "to raise orchestrator.max_chunk_samples"
            )
            yield FieldViolation("ppo.chunk_size", text)

    def _tokens(self, works: Sequence[_Work], longest_prompt: int, ppo: PpoSpec) -> Iterator[FieldViolation]:
        new_tokens = ppo.generation.max_new_tokens
        length = longest_prompt + new_tokens
        each = f"{length} tokens each (the longest prompt has {longest_prompt}, ppo.generation.max_new_tokens is "
        each += f"{new_tokens})"
        for work in works:
            if work.samples * length > self.tokens:
                yield FieldViolation(
                    work.field,
                    f"{work.text}, with up to {each}: this deployment holds {self.tokens} tokens at once; lower one "
                    "of them, or ask its operator to raise orchestrator.max_step_tokens",
                )
        rows = _largest_chunk(works, ppo)
        if rows * length > self.chunk_tokens:
            yield FieldViolation(
                "ppo.chunk_size",
                f"{rows} samples with up to {each}: one message between services takes {self.chunk_tokens} tokens "
                "(server.max_message_mib)",
            )


def _works(spec: JobSpec, eval_prompts: int) -> list[_Work]:
    ppo = spec.ppo
    samples = ppo.sequences_per_step * (min(ppo.staleness, ppo.steps - 1) + 1)
    text = (
        f"{ppo.prompts_per_step} prompts times ppo.samples_per_prompt {ppo.samples_per_prompt}, with ppo.staleness "
        f"{ppo.staleness}, are {samples} samples in work"
    )
    factors = {
        "ppo.prompts_per_step": ppo.prompts_per_step,
        "ppo.samples_per_prompt": ppo.samples_per_prompt,
        "ppo.staleness": min(ppo.staleness, ppo.steps - 1) + 1,
    }
    works = [_Work(max(factors, key=factors.__getitem__), samples, text)]
    if eval_prompts:
        works.append(_Work("ppo.eval_prompts", eval_prompts, f"{eval_prompts} prompts are as many samples"))
    if spec.reward.center:
        count = spec.reward.center_samples
        works.append(_Work("reward.center_samples", count, f"{count} samples"))
    return works


def _largest_chunk(works: Sequence[_Work], ppo: PpoSpec) -> int:
    return min(ppo.chunk_size, max(work.samples for work in works))


def _refuse(violations: Iterable[FieldViolation]) -> None:
    found = list(violations)
    if found:
        raise invalid_spec(found)
