"""Which rows an optimizer step of SFT or reward-model training takes: a pure function of (rows, seed, step)."""

from dataclasses import dataclass

from quatrain.algorithms.permutation import permutation
from quatrain.errors import InvalidData


@dataclass(frozen=True)
class RowOrder:
    """`rows` rows in batches of `batch_size`, permuted anew in each epoch; its last batch may be smaller."""

    stage: str
    rows: int
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise InvalidData(f"Stage {self.stage} has no rows to train on; look at the data report for dropped rows.")

    @property
    def steps_per_epoch(self) -> int:
        """Return the optimizer steps that see every row once."""
        return -(-self.rows // self.batch_size)

    def epoch_of(self, step: int) -> int:
        """Return the epoch (from 0) of step 1, 2, ..."""
        return (step - 1) // self.steps_per_epoch

    def batch(self, step: int) -> list[int]:
        """Return the row numbers of step 1, 2, ..."""
        epoch, index = divmod(step - 1, self.steps_per_epoch)
        order = permutation(self.rows, self.stage, self.seed, epoch)
        return order[index * self.batch_size : (index + 1) * self.batch_size]
