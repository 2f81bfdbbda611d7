"""The settings that are tried: the study's own, and every combination of the values of some keys.

A key is one of the study file, by its path; every combination is read as a study file is, so that a setting that makes
no sense is refused before anything is trained.

>>> axis("privacy.clip_norm=.5,1")
('privacy.clip_norm', [0.5, 1])
>>> axis("model.hidden=[8],[16, 16]")
('model.hidden', [[8], [16, 16]])
"""

import copy
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from configs.errors import ArchipelError, ConfigError
from configs.load import study_from
from configs.schema import Study
from configs.shown import short
from configs.strict_yaml import parse_yaml

MOST = 10_000  # settings
SECTIONS = ("training", "model", "features", "privacy")  # of which a key may be tried
ASKED = ("privacy.mode", "privacy.epsilon", "privacy.delta", "privacy.spare")  # what hospitals grant is no setting
AROUND: Mapping[str, Sequence[float]] = {  # key -> factors of the study's own value, where no key is named
    "privacy.clip_norm": (0.5, 1, 2, 4),
    "training.local.learning_rate": (0.5, 1, 2),
    "training.rounds": (0.5, 1, 2),
}
Axes = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Candidate:
    """A setting: what is changed in the study's file, and the study that this makes."""

    changes: tuple[tuple[str, Any], ...]
    study: Study

    def __str__(self) -> str:
        return ", ".join(f"{key.rpartition('.')[2]} {_plain(value)}" for key, value in self.changes)


def axes_of(study: Study, asked: Sequence[str]) -> dict[str, list[Any]]:
    """Return the values of each key that is varied: those asked for, or some around the study's own.

    Raises:
        ArchipelError: an option is of another form, or names a key that is no setting.
    """
    if asked:
        axes = dict(map(axis, asked))
        if len(axes) < len(asked):
            raise ArchipelError("--set: expected each key once, found one twice; list its values in one option")
        return axes
    document = study.to_file()
    own = {key: _value(document, key) for key in AROUND}
    return {key: [_near(value, factor) for factor in AROUND[key]] for key, value in own.items() if value is not None}


def axis(text: str) -> tuple[str, list[Any]]:
    """Return the key of an option KEY=VALUE,VALUE and its values.

    Raises:
        ArchipelError: it is of another form, or the key is no setting.
    """
    key, equals, listed = text.partition("=")
    try:
        values = parse_yaml(f"[{listed}]", "--set")
    except ConfigError:
        values = []
    if not equals or not values or None in values:
        example = "training.local.learning_rate=1,2,4"
        raise ArchipelError(f"--set: expected KEY=VALUE,VALUE as {example}, found {short(text)!r}")
    if key.partition(".")[0] not in SECTIONS or "." not in key or key in ASKED:
        raise ArchipelError(
            f"--set: expected a key of {', '.join(SECTIONS)} that is no part of the question, found {short(key)!r}; "
            "name a setting, or write another study"
        )
    return key, values


def count(axes: Axes) -> int:
    """Return the number of combinations, beside the study's own settings."""
    return math.prod(len(values) for values in axes.values())


def candidates(study: Study, axes: Axes) -> list[Candidate]:
    """Return the study's own settings, then every other combination.

    Raises:
        ConfigError: a combination makes no study.
    """
    own = Candidate(tuple((key, _value(study.to_file(), key)) for key in axes), study)
    made = {study.sha256: own}
    for changes in _combinations(axes):
        candidate = Candidate(changes, _changed(study, changes))
        made.setdefault(candidate.study.sha256, candidate)
    return list(made.values())


def _combinations(axes: Axes) -> Iterator[tuple[tuple[str, Any], ...]]:
    for values in itertools.product(*axes.values()):
        yield tuple(zip(axes, values, strict=True))


def _changed(study: Study, changes: tuple[tuple[str, Any], ...]) -> Study:
    """Return the study with other values of some keys, read as a file is."""
    document = copy.deepcopy(study.to_file())
    for key, value in changes:
        *path, last = key.split(".")
        section = document
        for name in path:
            section = section.setdefault(name, {})
            if not isinstance(section, dict):
                raise ConfigError("--set", [f"{key}: expected a key of a section, found one of {name!r}; correct it"])
        section[last] = value
    text = ", ".join(f"{key}={_plain(value)}" for key, value in changes)
    return replace(study_from(document, source=f"--set {text}"), simulation=study.simulation)


def _value(document: Any, key: str) -> Any:
    """Return the value at a path, None where there is none."""
    for name in key.split("."):
        document = document.get(name) if isinstance(document, Mapping) else None
    return document


def _near(own: float, factor: float) -> float:
    """Return a multiple of a value: of a whole number a whole one, from 1."""
    return max(1, round(own * factor)) if isinstance(own, int) else own * factor


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else "default" if value is None else str(value)
