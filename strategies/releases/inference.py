"""The release `inference`: a noisy score and information at the final model, from which ratios get intervals.

Both halves are here. A patient's score and information are one vector no longer than a public bound
(strategies/releases/information.py), to the sum of which Gaussian noise of the booked multiplier times that bound is
added, rounded to a public grid. The estimate and its intervals follow at the coordinator
(strategies/releases/newton.py), the words from strategies/effects.py.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from configs import wire
from configs.errors import WireError
from configs.records.estimate import Estimate
from configs.records.inference import INFERENCE_KEYS, InferenceKeys, Ratio, Ratios
from configs.schema import Study
from configs.wire import ArraySpec
from strategies.effects import Contrast, coefficients, contrasts, curved, effect_of
from strategies.privacy.grid import on_grid, step_of
from strategies.releases.base import Arrays, Each, Hospital, Judge, Making, People, Request, Sent
from strategies.releases.further import FurtherRelease, given_keys, keys_of
from strategies.releases.information import Frame, frame_of, summed
from strategies.releases.newton import DROWNED, FARTHEST, Inferred, inferred
from strategies.releases.noisy_counts import FAR
from strategies.tasks.registry import objective_of

if TYPE_CHECKING:  # PyTorch, which the coordinator's half does not need
    from strategies.privacy.randomness import Randomness

MOST_PATIENTS = 10_000_000  # at a hospital that announced none


class Inference(FurtherRelease):
    """The final model's score and information over the training patients; asked for once, after the last round."""

    name: ClassVar[str] = INFERENCE_KEYS.name
    what: ClassVar[str] = "noisy score and information at the final model"
    message_type: ClassVar[str] = wire.INFERENCE

    def arrays(self, study: Study) -> Mapping[str, ArraySpec]:
        """Return one vector: the score, then the information's upper triangle."""
        return {wire.INFORMATION: ((frame_of(study).size,), "float32")} if keys_of(study, InferenceKeys) else {}

    def make(self, hospital: Hospital, people: People, request: Request, randomness: "Randomness") -> Making:
        """Sum the training patients' bounded vectors and add the noise."""
        yield from ()  # nothing is fitted
        frame = frame_of(hospital.study)
        exact = summed(people.train, hospital.task, request.arrays, frame)
        return {wire.INFORMATION: noised(exact, self.own_multiplier(hospital) * frame.length, randomness)}

    def judge(self, study: Study, _shared: Arrays, _sent: Sent) -> Judge:
        """Return what refuses sums that noise and announced patients cannot explain."""
        frame = frame_of(study)

        def check(site: str, arrays: Arrays) -> None:
            deviation = self.noise_multiplier(study, site) * frame.length
            require_plausible(arrays[wire.INFORMATION], frame, deviation, study.announced_train_patients(site))

        return Each(check)

    def combine(self, study: Study, released: Mapping[str, Arrays], shared: Arrays) -> Ratios:
        """Return each coefficient's ratio with its intervals, undefined where the noise would drown them."""
        frame, noise = frame_of(study), {site: self.noise_multiplier(study, site) for site in sorted(released)}
        sums = np.sum([np.asarray(arrays[wire.INFORMATION], np.float64) for arrays in released.values()], axis=0)
        result = of_sums(study, shared, sums, frame, [multiplier * frame.length for multiplier in noise.values()])
        return _ratios(study, shared, result, noise)

    def sentence(self, study: Study) -> str:
        """Return what leaves."""
        frame = frame_of(study)
        return (
            f"once, after the last round, {frame.size} numbers that say how certain the model's coefficients are: the "
            "sums over training patients of the gradient and the second derivative of the model's loss, each patient's "
            f"part cut to a length of at most {frame.length:.3g}, with noise"
        )

    def outlook(self, study: Study) -> str:
        """Return whether the noise must drown it, however informative the announced patients are.

        No patient's information is above L^2 times a public number (1/4 of one row), so that the weakest of d
        directions has n times that over d at most.
        """
        frame, sites = frame_of(study), study.training_sites
        patients = [study.announced_train_patients(site) for site in sites]
        if None in patients or not patients:
            return ""
        variance = sum((self.noise_multiplier(study, site) * frame.length / frame.scale) ** 2 for site in sites)
        most = sum(count or 0 for count in patients) * frame.length**2 * frame.most_informative / frame.dimension
        if math.sqrt(variance / 2 * (frame.dimension + 1)) / most <= DROWNED:
            return ""
        return (
            f"warning: inference: the noise will drown every ratio: {sum(count or 0 for count in patients):,} training "
            f"patients are too few for {frame.dimension - 1} inputs at epsilon {_asked_epsilon(study):g}; ask for more "
            "epsilon, more hospitals or fewer columns"
        )


def _asked_epsilon(study: Study) -> float:
    keys = given_keys(study, InferenceKeys)
    return keys.epsilon


def noised(exact: NDArray[np.float64], deviation: float, randomness: "Randomness") -> NDArray[np.float32]:
    """Return the sums with Gaussian noise of this standard deviation in each entry, on the public grid."""
    return on_grid(exact + randomness.gaussian(exact.size, deviation).numpy(), deviation, 1.0).astype(np.float32)


def require_plausible(
    released: NDArray[np.float32], frame: Frame, deviation: float, announced: int | None = None
) -> None:
    """Check that such sums can come from an honest hospital; their shape is known to be right.

    A hospital is taken to have at most twice the training patients that it announced, or 20 more.

    Raises:
        WireError: they cannot. The text holds no value.
    """
    vector = released.astype(np.float64)
    steps = vector / step_of(deviation)
    if not np.isfinite(vector).all() or (steps != np.rint(steps)).any():
        raise WireError("inference reply: expected sums on the noise's grid, found others")
    patients = MOST_PATIENTS if announced is None else max(2 * announced, announced + 20)
    if np.linalg.norm(vector) > patients * frame.length + deviation * (math.sqrt(frame.size) + FAR):
        raise WireError("inference reply: expected sums that the announced patients can explain, found larger ones")
    _, information = frame.apart(vector)
    slack = deviation / frame.scale * (math.sqrt(2.0 * frame.dimension) + FAR)
    if np.linalg.eigvalsh(information)[0] < -slack:
        raise WireError("inference reply: expected a second derivative that noise can explain, found one below zero")


def of_sums(
    study: Study,
    shared: Mapping[str, NDArray[np.floating]],
    sums: NDArray[np.float64],
    frame: Frame,
    noise: list[float],
) -> Inferred:
    """Return the estimate from the hospitals' sums.

    Args:
        shared: the final model. sums: (frame.size,) over all hospitals.
        noise: standard deviation of each hospital's noise, in the vector.
    """
    weights = coefficients(study, shared)
    assert weights is not None
    model = np.concatenate([weights, _intercepts(study, shared, frame) + float(weights @ frame.centre)])
    variance = sum(deviation**2 for deviation in noise)
    variances = variance, variance / frame.scale**2
    return inferred(objective_of(study), model, *frame.apart(sums), variances, ones=frame.ones)


def _intercepts(study: Study, shared: Mapping[str, NDArray[np.floating]], frame: Frame) -> NDArray[np.float64]:
    """Return the model's intercepts: of intervals that share one, the middle of theirs."""
    bias = float(next(array for array in shared.values() if array.ndim == 1)[0])
    added = next(array for array in shared.values() if array.ndim == 2)[0, len(study.inputs) :].astype(np.float64)
    places = np.array(frame.intercepts)
    return np.array([bias + (added[places == place].mean() if len(added) else 0.0) for place in range(frame.ones)])


def _ratios(
    study: Study, shared: Mapping[str, NDArray[np.floating]], result: Inferred, noise: Mapping[str, float]
) -> Ratios:
    objective, weights, frame = objective_of(study), coefficients(study, shared), frame_of(study)
    assert objective.measure is not None
    assert weights is not None

    def estimate(contrast: Contrast, *, whole: bool) -> Estimate | None:
        if result.moved is None:
            return None
        ends = result.ends(np.pad(contrast.weights, (0, frame.ones)), whole=whole)
        figures = [effect_of(objective, float(contrast.weights @ weights) + end) for end in ends]
        return None if None in figures else Estimate(*figures)  # type: ignore[arg-type]

    rows = tuple(
        Ratio(contrast.column, contrast.words, estimate(contrast, whole=True), estimate(contrast, whole=False))
        for contrast in contrasts(study)
    )
    return Ratios(
        measure=objective.measure.name,
        rows=rows,
        curved=curved(study),
        sites=tuple(noise),
        noise_multiplier=max(noise.values()),
        drowned=result.drowned if math.isfinite(result.drowned) else None,
        moved=result.distance,
        undefined=_undefined(result),
    )


def _undefined(result: Inferred) -> str:
    if result.moved is not None:
        return ""
    if result.drowned > DROWNED:
        return "noise would drown it: too few patients for so many columns at this epsilon"
    far = f", {result.distance:.1f} in log odds" if result.distance else ""
    return f"the final model is too far from the estimate{far} (at most {FARTHEST:g}): train longer"
