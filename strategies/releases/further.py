"""The base of further releases: what a study asks for under `releases`, once, after the training."""

from typing import TYPE_CHECKING, ClassVar, TypeVar

from configs.errors import ImplausibleError, PrivacyError, WireError
from configs.schema import Study
from strategies.privacy.modes.registry import mode_of
from strategies.releases.base import Hospital, Release

if TYPE_CHECKING:  # PyTorch, which the coordinator's half does not need
    from strategies.privacy.accounting import SampledGaussian
    from strategies.privacy.plan import PrivacyPlan

Keys = TypeVar("Keys")


class FurtherRelease(Release):
    """A kind that is named under `releases`, with an epsilon of its own there."""

    after_training: ClassVar[bool] = True

    def event(self, plan: "PrivacyPlan") -> "SampledGaussian | None":
        """Return the cost of the one release."""
        return dict(plan.others).get(self.name)

    def require_asked(self, study: Study) -> None:
        """Check that the study asks for it.

        Raises:
            WireError: it does not.
        """
        if all(asked.name != self.name for asked in study.releases):
            raise WireError(f"{self.form}: expected a study that asks for it (releases.{self.name}), found another")

    def own_multiplier(self, hospital: Hospital) -> float:
        """Return the noise of the release at the hospital, over the largest move of one patient: by its own plan."""
        assert hospital.plan is not None
        event = self.event(hospital.plan)
        assert event is not None
        return event.noise_multiplier

    def noise_multiplier(self, study: Study, site: str) -> float:
        """Return the same of a hospital, as the coordinator knows it.

        Raises:
            ImplausibleError: the hospital's plan has no such release: it announced no size, or it only tests.
        """
        try:
            plan = mode_of(study).plan(study, site)
        except PrivacyError:
            plan = None
        event = self.event(plan) if plan else None
        if event is None:
            raise ImplausibleError(
                f"{self.reply}: expected none, as this hospital has no privacy plan with it, found one"
            )
        return event.noise_multiplier


def keys_of(study: Study, section: type[Keys]) -> Keys | None:
    """Return what a study says of the release with such keys, None where it asks for none."""
    return next((asked.keys for asked in study.releases if isinstance(asked.keys, section)), None)


def given_keys(study: Study, section: type[Keys]) -> Keys:
    """Return the same of a study that asks for it."""
    keys = keys_of(study, section)
    assert keys is not None
    return keys
