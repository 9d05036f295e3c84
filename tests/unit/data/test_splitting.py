"""The held-out pairs: by prompt, and as before where all prompts differ."""

from array import array

import pytest

from quatrain.algorithms.permutation import permutation
from quatrain.data import PairRecord, fingerprint, held_out_prompts


def pairs(prompts: list[str]) -> list[PairRecord]:
    return [PairRecord(prompt, f"good {line}", f"bad {line}", None, line) for line, prompt in enumerate(prompts, 1)]


def prompts_of(records: list[PairRecord]) -> "array[int]":
    return array("Q", (fingerprint(record.prompt) for record in records))


@pytest.mark.parametrize(("count", "share", "seed"), [(10, 0.2, 1), (97, 0.05, 3), (40, 0.9, 2), (5, 1.0, 1)])
def test_different_prompts_are_held_out_in_the_order_of_the_seed(count: int, share: float, seed: int) -> None:
    records = pairs([f"prompt {n}" for n in range(count)])

    held_out = held_out_prompts(prompts_of(records), share, seed)

    order = permutation(count, "held-out", seed)[: min(int(count * share), count - 1)]
    assert held_out == {fingerprint(records[index].prompt) for index in order}


def test_pairs_of_one_prompt_are_on_one_side() -> None:
    records = pairs([f"prompt {n % 8}" for n in range(80)])

    held_out = held_out_prompts(prompts_of(records), 0.25, 1)

    assert len(held_out) == 2
    assert sum(fingerprint(record.prompt) in held_out for record in records) == 20


def test_what_cannot_be_held_out_is_not() -> None:
    assert held_out_prompts(prompts_of(pairs(["same"] * 20)), 0.5, 1) == frozenset()
    assert held_out_prompts(prompts_of(pairs(["a", "b"])), 0.0, 1) == frozenset()
