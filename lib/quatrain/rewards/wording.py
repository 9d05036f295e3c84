"""Rewards about length and words."""

from collections.abc import Sequence
from typing import Any

from quatrain.rewards.texts import texts_of


def length_band(
    completions: Sequence[Any],
    completion_ids: Sequence[Sequence[int]],
    low: int,
    high: int,
    unit: str = "tokens",
    **_: Any,
) -> list[float]:
    """Return 1 for a length of `low` to `high`, and less the farther it is outside: 0 at nothing and at twice `high`.

    `unit` is tokens (the end of sequence included), words or characters. Raises ValueError for a band that is none.
    """
    if not 0 <= low <= high or high == 0:
        raise ValueError(f"low {low} and high {high} are no band; give 0 <= low <= high, and high above 0")
    measures = {"tokens": completion_ids, "words": [text.split() for text in texts_of(completions)]}
    measures["characters"] = texts_of(completions)
    if unit not in measures:
        raise ValueError(f"unit {unit!r} is none of tokens, words, characters")
    return [_in_band(len(measured), low, high) for measured in measures[unit]]


def _in_band(length: int, low: int, high: int) -> float:
    if length < low:
        return length / low
    return 1.0 if length <= high else max(0.0, 2.0 - length / high)


def keywords(
    completions: Sequence[Any],
    wanted: Sequence[str] = (),
    unwanted: Sequence[str] = (),
    ignore_case: bool = True,
    **_: Any,
) -> list[float]:
    """Return the share of the `wanted` texts that are there, minus the share of the `unwanted` ones: -1 to 1.

    Raises ValueError when neither is given.
    """
    if isinstance(wanted, str) or isinstance(unwanted, str) or not (wanted or unwanted):
        raise ValueError("give lists of texts: args: {wanted: [please], unwanted: [damn]}")
    fold = str.casefold if ignore_case else str
    texts = [fold(text) for text in texts_of(completions)]
    return [_share(text, wanted, fold) - _share(text, unwanted, fold) for text in texts]


def _share(text: str, words: Sequence[str], fold: Any) -> float:
    return sum(fold(word) in text for word in words) / len(words) if words else 0.0


def repetition(completions: Sequence[Any], n: int = 3, **_: Any) -> list[float]:
    """Return minus the share of the `n`-word sequences that occurred before in the completion: 0 to nearly -1.

    Raises ValueError for an `n` below 1.
    """
    if n < 1:
        raise ValueError(f"n is {n}; the words of a sequence are 1 or more")
    return [-_repeated(text.casefold().split(), n) for text in texts_of(completions)]


def _repeated(words: Sequence[str], n: int) -> float:
    sequences = [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]
    return 1.0 - len(set(sequences)) / len(sequences) if sequences else 0.0
