"""The registered kinds of release, and the arrays of each message of a study.

>>> RELEASES.names
('model update', 'score histogram', 'statistics', 'inference', 'subgroups', 'kaplan_meier', 'score_sum')
"""

import math
from collections.abc import Mapping
from dataclasses import fields

from configs import wire
from configs.errors import KindError
from configs.kinds import Registry
from configs.schema import Study
from configs.schema.releases import RELEASE_KEYS, ReleaseKeys
from configs.wire import ArraySpec
from strategies.models.registry import study_parameters
from strategies.privacy.modes.registry import mode_of
from strategies.releases.base import Release
from strategies.releases.inference import Inference
from strategies.releases.kaplan_meier import KaplanMeier
from strategies.releases.model_update import ModelUpdate
from strategies.releases.score_histogram import ScoreHistogram
from strategies.releases.score_sum import ScoreSum
from strategies.releases.statistics import Statistics
from strategies.releases.subgroups import SubgroupHistograms

_PARTS = ("what", "message_type", "arrays", "event", "require", "make", "judge", "combine", "sentence")
MODEL_UPDATE, SCORE_HISTOGRAM, STATISTICS = ModelUpdate(), ScoreHistogram(), Statistics()
INFERENCE, SUBGROUPS = Inference(), SubgroupHistograms()  # further releases, after those of every study
RELEASES: Registry[Release] = Registry(
    "release", _PARTS, (MODEL_UPDATE, SCORE_HISTOGRAM, STATISTICS, INFERENCE, SUBGROUPS, KaplanMeier(), ScoreSum())
)


def register(kind: Release, keys: ReleaseKeys, instruction: wire.Form, reply: wire.Form) -> None:
    """Add a kind of release, so that studies may ask for it and its messages may cross.

    Raises:
        KindError: another one has its name or its forms, or it lacks a part.
    """
    if kind.name != keys.name:
        raise KindError(f"release {kind.name!r}: expected keys of its own name, found {keys.name!r}; correct one")
    if "epsilon" not in {entry.name for entry in fields(keys.section)}:
        raise KindError(f"release {kind.name!r}: expected its cost among its keys, found no epsilon; add it")
    form = kind.message_type.rpartition(".")[2]
    if others := [other for other in RELEASES if other is not kind and other.form == form]:
        raise KindError(
            f"release {kind.name!r}: expected a form of its own, found that of {others[0].name!r}; rename it"
        )
    RELEASES.register(kind)
    RELEASE_KEYS.register(keys)
    wire.register(kind.message_type, form, instruction, reply)


def main_release(study: Study) -> Release:
    """Return the kind of release that a study is about: its updates, or its one release."""
    return next(kind for kind in RELEASES if not kind.after_training and kind.is_asked(study))


def releases_after_training(study: Study) -> list[Release]:
    """Return the kinds of release that a study asks for once, after its last round."""
    return [kind for kind in RELEASES if kind.after_training and kind.is_asked(study)]


def is_asked_of(kind: Release, study: Study, site: str) -> bool:
    """Return whether a hospital is asked for a kind: one that only tests, for the figures of its test patients alone.

    Raises:
        PrivacyError: such a hospital has no plan.
    """
    if study.trains_at(site):
        return True
    plan = mode_of(study).plan(study, site)
    return plan is not None and kind.of_test and kind.event(plan) is not None


def release_of(form: str) -> Release | None:
    """Return the kind of release that an instruction or a reply of this form is about, if it is about one."""
    return next((kind for kind in RELEASES if form in (kind.form, kind.reply)), None)


def is_reply(form: str) -> bool:
    """Return whether a message of this form carries a release."""
    return any(form == kind.reply for kind in RELEASES)


def arrays_of(form: str, study: Study) -> Mapping[str, ArraySpec]:
    """Return the arrays of one form of configs/wire.py in this study."""
    if form == wire.ASKS[wire.END]:
        return study_parameters(study)
    kind = release_of(form)
    if kind is None:
        return {}
    return kind.arrays(study) if form == kind.reply else kind.instructed(study)


def study_bytes(study: Study) -> int:
    """Return the most bytes of arrays in a message of the study, of whatever it asks: a model, say, or statistics."""
    return max((kind_bytes(kind, study) for kind in RELEASES if kind.is_asked(study)), default=0)


def kind_bytes(kind: Release, study: Study) -> int:
    """Return the bytes of arrays in the larger of a release's two messages."""
    both = kind.instructed(study), kind.arrays(study)
    return max(sum(4 * math.prod(shape) for shape, _ in arrays.values()) for arrays in both)
