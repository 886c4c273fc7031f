"""The order of rows, a function of seed and step alone: a resume needs the step only, and all ranks agree."""

import random
from collections.abc import Sequence
from functools import lru_cache


class RowOrder:
    """The global batches of a run.

    Rows are shuffled anew in every epoch; epochs follow each other without a gap, so a batch may cross their border and
    no row is left out.

    Args:
        size: number of rows.
        batch_rows: rows of one global batch.
        seed: of the run.
    """

    def __init__(self, size: int, batch_rows: int, seed: int):
        if size < 1 or batch_rows < 1:
            raise ValueError(f"an order needs rows and a batch size, got {size} rows and batches of {batch_rows}")
        self.size, self.batch_rows, self.seed = size, batch_rows, seed
        self._epoch = lru_cache(maxsize=2)(self._shuffled)  # a batch rarely touches more than two epochs

    def batch(self, step: int) -> list[int]:
        """Row indices of the global batch of ``step`` (from 0), ``batch_rows`` of them."""
        if step < 0:
            raise ValueError(f"step {step} is negative")
        start = step * self.batch_rows
        indices: list[int] = []
        while len(indices) < self.batch_rows:
            epoch, offset = divmod(start + len(indices), self.size)
            indices += self._epoch(epoch)[offset : offset + self.batch_rows - len(indices)]
        return indices

    def _shuffled(self, epoch: int) -> list[int]:
        # sorting by random() is stable across Python versions, which shuffle() does not promise
        draw = random.Random(f"row order {self.seed} {epoch}").random
        keys = [draw() for _ in range(self.size)]
        return sorted(range(self.size), key=keys.__getitem__)


def share(batch: Sequence[int], *, rank: int, world_size: int, micro_batch_rows: int) -> list[list[int]]:
    """The micro-batches of one rank.

    Micro-batch k of rank r is ``batch[(k * world_size + r) * m :][:m]``, so 2 ranks with 1 micro-batch and 1 rank with
    2 hold the same ones. Every rank gets the same number of micro-batches; the last ones may be short or empty.
    """
    if not 0 <= rank < world_size or micro_batch_rows < 1:
        raise ValueError(f"no share for rank {rank} of {world_size} in micro-batches of {micro_batch_rows}")
    rows_a_round = world_size * micro_batch_rows
    starts = range(rank * micro_batch_rows, -(-len(batch) // rows_a_round) * rows_a_round, rows_a_round)
    return [list(batch[start : start + micro_batch_rows]) for start in starts]
