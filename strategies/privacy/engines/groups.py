"""The grouping of a batch's rows by patient.

>>> groups = Groups.of(torch.tensor([0, 1, 0]), 2)
>>> groups.one_row_each, groups.sum(torch.tensor([[1.0], [2.0], [3.0]])).tolist()
(False, [[4.0], [2.0]])
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor


@lru_cache(maxsize=1024)
def positions(count: int) -> Tensor:
    """Return 0 to count - 1, always the same tensor: an engine that gets it knows that each row is a patient."""
    return torch.arange(count)


@dataclass(frozen=True)
class Groups:
    """The patient of each row: `patients` is (rows,), positions from 0 to `count` - 1."""

    patients: Tensor
    count: int
    one_row_each: bool

    @classmethod
    def of(cls, patients: Tensor, count: int, device: torch.device | None = None) -> "Groups":
        """Return the groups of what an engine is given; `device` is where the rows are, if not where `patients` is."""
        if patients is positions(count):
            return _one_row_each(count, device)
        return cls(patients.to(device), count, counts_up(patients, count))

    def sum(self, rows: Tensor) -> Tensor:
        """Add up each patient's rows: (rows, ...) -> (count, ...)."""
        if self.one_row_each:
            return rows
        return rows.new_zeros((self.count, *rows.shape[1:])).index_add_(0, self.patients, rows)

    def of_rows(self, values: Tensor) -> Tensor:
        """Return the value of each row's patient: (count,) -> (rows,)."""
        return values if self.one_row_each else values[self.patients]

    @cached_property
    def buckets(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return patients of about as many rows together, padded to a power of two.

        Each bucket is patients (p,), their row numbers (p, rows), and which of those are real (p, rows).
        """
        owners = self.patients.cpu().numpy()
        counts = np.bincount(owners, minlength=self.count)
        order = np.argsort(owners, kind="stable")
        starts = np.cumsum(counts) - counts
        sizes = np.where(counts > 0, 1 << np.ceil(np.log2(np.maximum(counts, 1))).astype(np.int64), 0)
        buckets = []
        for size in np.unique(sizes[sizes > 0]):
            chosen = np.flatnonzero(sizes == size)
            place = np.arange(size)[None, :]
            real = place < counts[chosen, None]
            rows = order[starts[chosen, None] + np.where(real, place, 0)]
            members, numbers, is_real = (torch.from_numpy(a).to(self.patients.device) for a in (chosen, rows, real))
            buckets.append((members, numbers, is_real))
        return buckets


@lru_cache(maxsize=1024)
def _one_row_each(count: int, device: torch.device | None) -> Groups:
    return Groups(positions(count).to(device), count, one_row_each=True)


def counts_up(patients: Tensor, count: int) -> bool:
    """Return whether every patient has one row, in order."""
    if patients is positions(count):
        return True
    return len(patients) == count and torch.equal(patients, positions(count).to(patients.device))
