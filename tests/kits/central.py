"""A toy privacy mode: updates leave the hospitals clipped, and the coordinator adds the noise, to the combined model.

Each hospital's whole update is clipped, so a hospital is the unit (McMahan et al. 2018, arXiv 1710.06963, with one
hospital in the place of one user). A toy: against the coordinator it protects nothing. Not part of the product.
"""

import math
from collections.abc import Mapping

import numpy as np

from configs.errors import PrivacyError
from configs.schema import Study
from configs.schema.privacy import ModeKeys
from strategies.exchange.arrays import Arrays
from strategies.privacy.modes.base import Guarantee, PrivacyMode
from strategies.privacy.modes.registry import register
from strategies.privacy.plan import Budget, PrivacyPlan, calibrate

MEANS = ("fedavg", "fedprox")


class Central(PrivacyMode):
    """Both halves: a hospital clips (`protect`), the coordinator adds noise (`combine`)."""

    keys = ModeKeys(
        "central",
        budgeted=True,
        noised_here=False,
        leaves="its updates leave without noise, which the coordinator adds",
        unit="hospital",
        adjacency="all of its patients or none",
    )

    def plan(self, study: Study, site: str, patients: int = 1, *, figures: bool = True) -> PrivacyPlan:
        """Return one Gaussian release a round: the combined model, which no hospital moves by more than the clip norm.

        Raises:
            PrivacyError: no noise reaches the budget, or the study's strategy is no weighted mean.
        """
        del patients, figures
        if study.training.strategy.name not in MEANS:
            raise PrivacyError(
                f"privacy.mode: expected a strategy that is a weighted mean ({', '.join(MEANS)}) with central, "
                f"found {study.training.strategy.name}; change one of the two"
            )
        return calibrate(
            Budget(study.privacy.epsilon, study.privacy.delta),
            clip_norm=study.privacy.clip_norm,
            sampling_rate=1.0,
            steps_per_round=1,
            rounds=study.training.rounds,
            patients=study.announced_train_patients(site) or 1,
            spare=study.privacy.spare,
        )

    def protect(self, study: Study, start: Arrays, trained: Arrays) -> Arrays:
        """Return the trained model, no further from the start than the clip norm (L2)."""
        moved = {name: trained[name].astype(np.float64) - array for name, array in start.items()}
        norm = math.sqrt(sum(float(np.square(part).sum()) for part in moved.values()))
        share = min(1.0, study.privacy.clip_norm / norm) if norm else 1.0
        return {name: np.asarray(array + share * moved[name], np.float32) for name, array in start.items()}

    def combine(
        self, study: Study, combined: Arrays, weights: Mapping[str, float], number: int, *, seeded: bool
    ) -> Arrays:
        """Return the mean with noise for the hospital of the largest weight."""
        from strategies.privacy.randomness import Randomness  # PyTorch, which the commands of people do not need

        plan = self.plan(study, next(iter(weights)))
        deviation = plan.noise_multiplier * plan.clip_norm * max(weights.values()) / sum(weights.values())
        chance = Randomness.seeded(study.seed, "coordinator", number) if seeded else Randomness.system()
        return {
            name: np.asarray(array + chance.gaussian(array.size, deviation).numpy().reshape(array.shape), np.float32)
            for name, array in combined.items()
        }

    def guarantee(self, study: Study) -> Guarantee:
        """Return what the noisy models guarantee, and against whom they do not."""
        del study
        return Guarantee(
            self.keys.unit,
            self.keys.adjacency,
            "in the combined models",
            "whoever sees the combined models alone",
            "A toy: it does not protect against the coordinator, which sees each hospital's update without noise",
        )


CENTRAL = Central()


def install() -> None:
    """Register the mode, so that studies may name it."""
    register(CENTRAL)
