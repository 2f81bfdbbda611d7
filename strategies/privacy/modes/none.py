"""No privacy: updates leave as they are.

It is for simulations, and for hospitals that allow it.

>>> NONE.plan(None, "lille"), NONE.guarantee(None)
(None, None)
"""

from dataclasses import replace

from configs.schema import Privacy, Study
from configs.schema.privacy import NONE_KEYS
from strategies.privacy.modes.base import PrivacyMode


class NoPrivacy(PrivacyMode):
    """The mode without privacy: nothing is planned, added or guaranteed."""

    keys = NONE_KEYS


NONE = NoPrivacy()


def without_privacy(study: Study) -> Study:
    """Return the same study without privacy, and without the release that only a private one may ask for."""
    return replace(study, privacy=Privacy(NONE.name), evaluation=replace(study.evaluation, release=None))
