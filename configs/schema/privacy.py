"""The section `privacy`: the guarantee that a study asks for."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from configs.keys.declare import Declaration, declaration_of, key
from configs.keys.one_of import OneOf
from configs.keys.values import Around, Integer, Number, Place
from configs.kinds import Registry
from configs.sections import Section

PER_PATIENT = "per patient, add or remove one"  # what every epsilon is about, wherever one is printed
MIN_EPSILON, MAX_EPSILON = 0.01, 100.0
MAX_SPARE = 1_000
_EPSILON = f"0.01 to {MAX_EPSILON:g}, {PER_PATIENT}"


class _Delta(Number):
    """A delta below one over the largest hospital's announced patients."""

    def read(self, at: Place) -> float:
        """Return the number, NaN in place of a mistake."""
        largest = max((member.patients for member in _members(at.around)), default=0)
        bound = 1.0 / largest if largest else self.high
        expected = f"1e-12 <= delta < {f'1/patients (= {bound:.1e})' if largest else f'{self.high:g}'}"
        return Number(expected, self.low, math.nextafter(bound, 0.0)).read(at)


_CLIP_NORM = Number("a number from 1e-6 to 1e6", 1e-6, 1e6)


def _left_open(section: Section, around: Around) -> float:
    """Return 0 where the settings are left to be completed; elsewhere note that the clip norm is missing."""
    unfinished = getattr(around.get("training"), "auto", False)
    return 0.0 if unfinished else _CLIP_NORM.read(Place(section, "clip_norm", None, around))


def _members(around: Around) -> Iterable[Any]:
    return around["cohort"]  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Privacy:
    """The guarantee asked for: (epsilon, delta) per patient, add or remove one, at each hospital, whole study.

    `spare` is how many lost releases each hospital may make anew over the whole study. The noise is calibrated as if
    all of them were needed, so that none of them is beyond epsilon.
    """

    mode: str
    epsilon: float = key(
        Number(f"{_EPSILON}, for the whole study", MIN_EPSILON, MAX_EPSILON),
        f"the budget {PER_PATIENT}, at each hospital, for the whole study",
        init=0.0,
    )
    delta: float = key(
        _Delta("1e-12 <= delta < 1/patients of the largest hospital, or 0.01", 1e-12, 0.01),
        "the chance that the guarantee does not hold",
        init=0.0,
    )
    clip_norm: float = key(
        _CLIP_NORM,
        "the largest norm of one patient's gradient",
        default=_left_open,
        init=0.0,
        unsaid="from the columns, with training: auto",
    )
    spare: int = key(
        Integer(0, MAX_SPARE),
        default=0,
        written=lambda privacy: privacy.spare,  # studies keep the digest that they had before there was a spare
        about="lost releases that each hospital may make anew, within epsilon",
    )

    @property
    def keys(self) -> "ModeKeys":
        """Return what the mode means for the study's file and for a policy."""
        return PRIVACY_MODES[self.mode]

    def to_dict(self) -> dict[str, Any]:
        """Return the section as a study file has it, without what says nothing.

        >>> Privacy("none").to_dict(), Privacy("local", 1.0, 1e-5, 1.0, spare=2).to_dict()["spare"]
        ({'mode': 'none'}, 2)
        """
        return PRIVACY.write(self)


def _check_counting(privacy: Privacy, section: Section, _around: Around) -> None:
    expected = f"{_noised()}, as no exact count of patients leaves a hospital"
    section.problem("mode", expected, privacy.mode, f"say mode: {_noised()}")


def _check_announced(_privacy: Privacy, section: Section, _around: Around) -> None:
    if section.top.values.get("cohort") in (None, {}):
        why = "noise, rate and steps follow from these public numbers, never from a count"
        advice = f"{why}: add cohort: {{HOSPITAL: PATIENTS}}, round numbers will do"
        section.top.problem("cohort", "each hospital's announced patients", None, advice)


_KEYS = declaration_of(Privacy)
_COUNTED = {"clip_norm": "expected nothing with task.type: statistics: a patient counts as one; remove it"}


@dataclass(frozen=True, slots=True)
class ModeKeys:
    """One value of `privacy.mode`: what it means for the study's file, and for a hospital's policy.

    What a mode does stands in strategies/privacy/modes, one file each, from where a new one is registered.

    Attributes:
        budgeted: whether the study has an epsilon, a delta, a clip norm and spare releases. Then sizes are announced
            ones, inputs are scaled by public ranges, each release is booked in the hospital's ledger before a patient
            is read and leaves at a public time, and a failure caused by a row is not visible.
        noised_here: whether a hospital adds noise to what it sends. Only then can it send counts, train by the private
            engines, and keep to itself which patients a step draws.
        leaves: what leaves a hospital without noise, in words; empty where nothing does. A policy lets it leave only
            with `allow_privacy_none`.
        unit: the owner of the data that one step of `adjacency` adds or removes.
        adjacency: what the guarantee compares.
    """

    name: str
    budgeted: bool
    noised_here: bool
    leaves: str
    unit: str = "patient"
    adjacency: str = "add or remove one"

    @property
    def section(self) -> Declaration:
        """Return the declaration of the section `privacy` of a study that trains."""
        if self.budgeted:
            return _KEYS.but(check=_check_announced)
        refused = f"expected nothing with mode: {self.name}; remove it, or say mode: {_noised()}"
        return _KEYS.but(refused=dict.fromkeys(("epsilon", "delta", "clip_norm", "spare"), refused))

    @property
    def counting(self) -> Declaration:
        """Return the declaration of the section `privacy` of a study of statistics."""
        return _KEYS.but(refused=_COUNTED) if self.noised_here else self.section.but(check=_check_counting)

    @property
    def about(self) -> str:
        """Return what each epsilon is about."""
        return f"per {self.unit}, {self.adjacency}"

    def refusal(self, *, allow_privacy_none: bool) -> str:
        """Return why a hospital's policy refuses the mode, an empty text where it does not."""
        if allow_privacy_none or (self.noised_here and not self.leaves):
            return ""
        return f"{self.leaves or 'noise is added elsewhere'}; the policy does not allow that (allow_privacy_none)"


def _noised() -> str:
    return " or ".join(kind.name for kind in PRIVACY_MODES if kind.noised_here)


LOCAL_KEYS = ModeKeys("local", budgeted=True, noised_here=True, leaves="")
NONE_KEYS = ModeKeys("none", budgeted=False, noised_here=False, leaves="it trains without differential privacy")
PRIVACY_MODES: Registry[ModeKeys] = Registry(
    "privacy mode", ("budgeted", "noised_here", "leaves", "refusal"), (LOCAL_KEYS, NONE_KEYS)
)


def is_budgeted(mode: str) -> bool:
    """Return whether a run's mode has a budget; a mode that this installation lacks counts as one that has."""
    return mode not in PRIVACY_MODES or PRIVACY_MODES[mode].budgeted


PRIVACY = OneOf(PRIVACY_MODES, "mode", "a mapping with a mode")


class _Counting(OneOf):
    """The section of a study that counts."""

    def declaration(self, name: str) -> Declaration:
        """Return what the mode of that name makes of it."""
        return PRIVACY_MODES[name].counting


COUNTING_PRIVACY = _Counting(PRIVACY_MODES, "mode", "a mapping with a mode")
