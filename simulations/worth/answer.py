"""The answer of `archipel plan --worth`, part by part."""

from dataclasses import asdict, dataclass
from typing import Any

from simulations.worth.search import Settings
from simulations.worth.synthetic import Assumed
from simulations.worth.worlds import Interval


@dataclass(frozen=True, slots=True)
class Probabilities:
    """How far a model's probabilities can be trusted, over worlds.

    Args:
        calibration: mean predicted probability less the observed share (calibration-in-the-large).
        off: its size in one world, whichever its sign: what one study must expect.
        called: the share of patients called ill.
    """

    calibration: Interval
    off: Interval
    called: float


@dataclass(frozen=True, slots=True)
class AtEpsilon:
    """One row of the first table: the loss, and what of it is the noise's; `probabilities` None without one outcome."""

    epsilon: float
    auroc: Interval
    loss: Interval
    noise: Interval
    nine_in_ten: float
    probabilities: Probabilities | None = None


@dataclass(frozen=True, slots=True)
class Reference:
    """A model that the private ones are held against; `loss` as theirs, below none where it is better."""

    auroc: Interval
    loss: Interval


@dataclass(frozen=True, slots=True)
class AtHospitals:
    """One column of the second table: the largest so many hospitals, their patients, the loss at each epsilon."""

    hospitals: int
    patients: int
    without_privacy: Interval
    losses: dict[float, Interval]


@dataclass(frozen=True, slots=True)
class Recommended:
    """The settings that were found, on worlds that had no part in the search; `gain` is over the study's own."""

    settings: Settings
    tried: int
    auroc: Interval
    loss: Interval
    gain: Interval
    above_largest_alone: Interval | None
    better: bool
    probabilities: Probabilities | None = None


@dataclass(frozen=True, slots=True)
class Cheapest:
    """The least epsilon that was seen to reach the wish with the whole interval; None where none up to `tried` did.

    With the recommended settings, where these are better.
    """

    wanted: str
    tried: float
    epsilon: float | None = None
    auroc: Interval | None = None
    loss: Interval | None = None
    or_less: bool = False
    recommended: bool = False


@dataclass(frozen=True, slots=True)
class Worth:
    """The output of `archipel plan --worth`."""

    study: str
    classes: int
    epsilon: float
    delta: float
    within: float
    auroc: float | None
    assumed: Assumed
    outcomes_of: str
    repetitions: int
    asked: int
    seconds: float
    cut_off: str
    by_epsilon: tuple[AtEpsilon, ...]
    without_privacy: Interval | None
    clipping: Reference | None
    converged: Reference | None
    by_hospitals: tuple[AtHospitals, ...]
    above_largest_alone: Interval | None
    own: Settings
    recommended: Recommended | None
    cheapest: Cheapest | None
    verdict: str
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)
