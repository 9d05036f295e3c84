"""The two jobs that are measured; the peer's script repeats the same numbers."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

BATCH = 64
EPOCHS = 4
HIDDEN = 256
INTERMEDIATE = 704
LAYERS = 4
HEADS = 4
MAX_POSITIONS = 1024


@dataclass(frozen=True)
class Case:
    """A job: prompt lengths are drawn from `shortest` to `longest`; about one token in `vocabulary` is an end token."""

    name: str
    vocabulary: int
    eos_id: int
    pad_id: int
    shortest: int
    longest: int
    new_tokens: int

    def prompts(self, count: int, seed: int = 1) -> list[list[int]]:
        """Return random prompts without end or padding tokens."""
        draw = random.Random(f"{self.name}:{seed}")
        lengths = [draw.randint(self.shortest, self.longest) for _ in range(count)]
        return [[draw.randrange(self.pad_id) for _ in range(length)] for length in lengths]

    def text(self, ids: Sequence[int]) -> str:
        """Return the text that the case's tokenizer reads as these ids."""
        return " ".join(word(token) for token in ids)


def word(token: int) -> str:
    """Return the word of an id."""
    return f"t{token}"


CASES = {
    "uniform": Case("uniform", 512, 257, 256, 32, 32, 64),
    "ragged": Case("ragged", 64, 63, 62, 8, 64, 128),
}
