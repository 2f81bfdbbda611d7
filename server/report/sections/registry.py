"""The registered sections of a trained model's report, in the order of the page.

>>> print(*(section.key for section in sections_in_order()))
patients quality learning tuned calibration thresholds effects times rehearsal left-out privacy left rounds check
"""

from configs.kinds import Registry
from server.report.parts import Section
from server.report.released.registry import released_results
from server.report.sections import (
    calibration,
    check,
    effects,
    learning,
    left,
    left_out,
    patients,
    privacy,
    quality,
    rehearsal,
    rounds,
    thresholds,
    times,
    tuned,
)
from server.result.finished import Run

SECTIONS: Registry[Section] = Registry(
    "section of the report",
    ("key", "reading", "body"),
    [
        calibration.SECTION,
        check.SECTION,
        effects.SECTION,
        learning.SECTION,
        left.SECTION,
        patients.SECTION,
        left_out.SECTION,
        privacy.SECTION,
        quality.SECTION,
        rehearsal.SECTION,
        rounds.SECTION,
        thresholds.SECTION,
        times.SECTION,
        tuned.SECTION,
    ],
)


def sections_in_order() -> list[Section]:
    """Return every registered section, by its place on the page."""
    return sorted(SECTIONS, key=lambda section: section.place)


def sections_of(run: Run) -> list[Section]:
    """Return the sections that the report of a run has, those of its further releases among them."""
    released = [result.section() for result in released_results(run)]
    return sorted([*(s for s in SECTIONS if s.shows(run)), *released], key=lambda section: section.place)
