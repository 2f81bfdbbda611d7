"""Reading of a run's metrics.json for its report.

The file may come from anybody. Texts are cleaned and cut here (and escaped in markup.py), numbers must be finite.

>>> read('{"study": "heart", "study_sha256": "ab", "outcome": "COMPLETE", "rounds_completed": 2}').study
'heart'
>>> read('{"study": 1, "study_sha256": "ab", "outcome": "COMPLETE", "rounds_completed": 2}')
Traceback (most recent call last):
    ...
configs.errors.RunError: metrics.json: study: expected text, found a number; run the study again
"""

import json
import re
from pathlib import Path
from typing import NoReturn

from configs.errors import RecordError, RunError
from configs.records.result import StatisticsResult, TrainingResult, read_result
from server.result.finished import CountedElsewhere, Run

LONG_TEXT = 2_000
# Control characters, halves of surrogate pairs, and marks that reorder text so that it reads as something else.
UNREADABLE = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff\\ufeff\\ufffe\\uffff]"
)


def load(run: Path) -> Run:
    """Read a run's metrics.json.

    Raises:
        RunError: missing, unreadable or malformed; the text names the place.
    """
    return read(_text(run), str(run / "metrics.json"))


def load_result(run: Path) -> TrainingResult | StatisticsResult:
    """Read a run's metrics.json as the record that it is, its texts cleaned.

    Raises:
        RunError: as `load`.
    """
    return result_of(_text(run), str(run / "metrics.json"))


def counted_elsewhere(run: Path) -> CountedElsewhere:
    """Read what a run of statistics released.

    Raises:
        RunError: as `load`; or the run is none of statistics, or too few hospitals released anything.
    """
    result = load_result(run)
    if not isinstance(result, StatisticsResult) or result.statistics is None:
        what = "a training" if isinstance(result, TrainingResult) else "one without enough hospitals"
        raise RunError(f"{run}: expected a finished run of statistics, found {what}; give the folder of another")
    spent = [site.epsilon for site in result.sites if site.epsilon is not None]
    target = clean(str(result.task.get("target") or ""))
    return CountedElsewhere(result.study, result.study_sha256, max(spent, default=None), result.statistics, target)


def _text(run: Path) -> str:
    path = run / "metrics.json"
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}; give the folder of a finished run") from None
    except UnicodeDecodeError:
        raise RunError(f"{path}: expected UTF-8 text, found other bytes; run the study again") from None


def read(text: str, source: str = "metrics.json") -> Run:
    """Return the run that the text of a metrics.json says.

    Raises:
        RunError: with every mistake; it is no JSON, or not of its form.
    """
    try:
        return Run.of(result_of(text, source), clean)
    except RecordError as error:
        raise _refusal(source, error) from None


def result_of(text: str, source: str = "metrics.json") -> TrainingResult | StatisticsResult:
    """Return the record that the text of a metrics.json says, its texts cleaned.

    Raises:
        RunError: as `read`.
    """
    try:
        return read_result(json.loads(text, parse_constant=_no_constant), clean=clean)
    except RecordError as error:
        raise _refusal(source, error) from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{source}: expected JSON, found something else ({error}); run the study again") from None


def clean(text: str) -> str:
    """Return one line of readable characters, cut to a readable length.

    >>> clean("a\\n\\tb\\u202ec")
    'a b c'
    """
    text = " ".join(UNREADABLE.sub(" ", text[: 2 * LONG_TEXT]).split())
    return text if len(text) <= LONG_TEXT else f"{text[:LONG_TEXT]}…"


def _refusal(source: str, error: RecordError) -> RunError:
    return RunError("\n".join(f"{source}: {problem}; run the study again" for problem in error.problems))


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
