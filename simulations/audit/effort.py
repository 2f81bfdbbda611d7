"""The effort of an audit: the numbers of fits, steps and patients.

>>> FULL.smallest_loss
0.01
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """The amount of work of an audit. `smallest_loss` is the share of missing noise that must be noticed.

    `starts` and `places` are models and places in the batch where planted patients are tried. `rows`: of a hospital, in
    the long fits; where it has more, `all_rows` are what a short study of those patients who have most of them goes
    through, all its steps together, and `planted_rows` what a planted patient has at most. `values`: noise values of a
    rehearsed study that are kept. `moving_steps`: at the study's own learning rate, if they make no more than
    `moving_values` numbers; `quiet_steps`: of a fit at that rate without noise to speak of. `evaluations`: of one
    model, where the study asks for one.
    """

    smallest_loss: float = 0.01
    least_steps: int = 400
    most_steps: int = 20_000
    run_steps: int = 3_000
    few_steps: int = 200
    canaries: int = 1_000
    neighbours: int = 40
    starts: int = 3
    places: int = 3
    patients: int = 400
    sites: int = 8
    rows: int = 1_000
    all_rows: int = 2_000_000
    planted_rows: int = 40_000
    values: int = 1_000_000
    moving_steps: int = 600
    moving_values: int = 20_000_000
    quiet_steps: int = 40
    evaluations: int = 150


FULL = Effort()
