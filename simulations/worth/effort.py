"""The computing that an answer takes: how many trainings each part needs, and how long they may last.

One training of the whole study is the unit. Variants with fewer hospitals cost less and longer ones more, so the limit
is twice what is expected.

>>> trainings(repetitions=8, sizes=3, epsilons=4, search=False), limit_s(2.0)
(168, 60)
>>> limit_s(400.0)
800
"""

import math

from simulations.worth.search import FEW, GENERATIONS, KEPT, MANY

CONVERGED = 5  # times the study's rounds, for the model of all patients in one place
LEAST_S = 60
_MOVES = 9  # single moves, and the settings that they start from
_EPSILONS = 6  # that the search for the cheapest one tries
_MARGIN = 2.0


def trainings(*, repetitions: int, sizes: int, epsilons: int, search: bool) -> int:
    """Return how many trainings the whole answer needs.

    Args:
        sizes: of the federation, of which each is trained without privacy and at each of so many epsilons.
    """
    tables = repetitions * (sizes * (1 + epsilons) + 1 + CONVERGED)
    finalists = 1 + KEPT + KEPT * (KEPT - 1) // 2
    searched = GENERATIONS * (FEW * _MOVES + MANY * finalists) + repetitions * (1 + _EPSILONS)
    return tables + (searched if search else 0)


def limit_s(expected_s: float) -> int:
    """Return the seconds of computing that an answer may take where nobody sets them, in tens."""
    return max(LEAST_S, 10 * math.ceil(_MARGIN * expected_s / 10))
