"""The section `privacy`: the guarantee that a study asks for."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from configs.keys.declare import Declaration, OneOf, declaration_of, key
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
        init=0.0,
        about=f"the budget {PER_PATIENT}, at each hospital, for the whole study",
    )
    delta: float = key(
        _Delta("1e-12 <= delta < 1/patients of the largest hospital, or 0.01", 1e-12, 0.01),
        init=0.0,
        about="the chance that the guarantee does not hold",
    )
    clip_norm: float = key(
        Number("a number from 1e-6 to 1e6", 1e-6, 1e6), init=0.0, about="the largest norm of one patient's gradient"
    )
    spare: int = key(
        Integer(0, MAX_SPARE),
        default=0,
        written=lambda privacy: privacy.spare,  # studies keep the digest that they had before there was a spare
        about="lost releases that each hospital may make anew, within epsilon",
    )

    def to_dict(self) -> dict[str, Any]:
        """Return the section as a study file has it, without what says nothing.

        >>> Privacy("none").to_dict(), Privacy("local", 1.0, 1e-5, 1.0, spare=2).to_dict()["spare"]
        ({'mode': 'none'}, 2)
        """
        return PRIVACY.write(self)


def _check_counting(privacy: Privacy, section: Section, _around: Around) -> None:
    advice = "say mode: local"
    section.problem("mode", "local, as no exact count of patients leaves a hospital", privacy.mode, advice)


def _check_announced(_privacy: Privacy, section: Section, _around: Around) -> None:
    if section.top.values.get("cohort") in (None, {}):
        why = "noise, rate and steps follow from these public numbers, never from a count"
        advice = f"{why}: add cohort: {{HOSPITAL: PATIENTS}}, round numbers will do"
        section.top.problem("cohort", "each hospital's announced patients", None, advice)


@dataclass(frozen=True)
class _Mode:
    name: str
    section: Declaration
    protects: bool = True


_KEYS = declaration_of(Privacy)
_LOCAL = _KEYS.but(check=_check_announced)
_NOTHING = "expected nothing with mode: none; remove it, or say mode: local"
_NONE = _KEYS.but(refused=dict.fromkeys(("epsilon", "delta", "clip_norm", "spare"), _NOTHING))
_ONE_EACH = "expected nothing with task.type: statistics: a patient counts as one; remove it"
MODES = Registry("privacy mode", ("section",), [_Mode("local", _LOCAL), _Mode("none", _NONE, protects=False)])
PRIVACY = OneOf(MODES, "mode", "a mapping with a mode")
COUNTING_PRIVACY = OneOf(
    MODES,
    "mode",
    "a mapping with a mode",
    changes={"local": _KEYS.but(refused={"clip_norm": _ONE_EACH}), "none": _NONE.but(check=_check_counting)},
)


def protects(privacy: Privacy) -> bool:
    """Return whether a mode gives a guarantee of differential privacy."""
    return getattr(MODES[privacy.mode], "protects", True)
