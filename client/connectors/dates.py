"""Dates in cells -> seconds, and the time between two of them.

A form says how a date is written: YYYY, MM, DD, HH, mm, ss, and signs between them. Days and months may lack a zero in
front where a sign stands beside them. A year alone is its 1 July, a month alone its 15th: public rules, the same for
every patient. An offset from UTC is passed over: what counts is the clock at the hospital.

>>> read = date_reader("DD/MM/YYYY")
>>> (read("02/01/2020") - read("1/1/2020")) / DAY_S, read("2020-01-01") == NO_DATE, read("31/02/2020") == NO_DATE
(1.0, True, True)
"""

import datetime
import re
from collections.abc import Callable, Collection

import numpy as np
from numpy.typing import NDArray

from configs.schema.mapping import DATE_PARTS, ISO

NO_DATE = int(np.iinfo(np.int64).min)
DAY_S = 86_400
_LENGTHS_S = {"hours": 3600, "days": DAY_S, "weeks": 7 * DAY_S, "months": 30.4375 * DAY_S, "years": 365.25 * DAY_S}
_PATTERNS = {"YYYY": "[0-9]{4}", "MM": "[0-9]{2}", "DD": "[0-9]{2}", "HH": "[0-9]{2}", "mm": "[0-9]{2}"}
_ISO = r"(?P<YYYY>\d{4})-(?P<MM>\d\d)-(?P<DD>\d\d)(?:[T ](?P<HH>\d\d):(?P<mm>\d\d)(?::(?P<ss>\d\d)(?:[.,]\d+)?)?"
_ISO += r"(?:Z|[+-]\d\d(?::?\d\d)?)?)?"
_USUAL = ("DD/MM/YYYY", "YYYY-MM-DD", ISO, "DD-MM-YYYY", "DD.MM.YYYY", "YYYY/MM/DD", "YYYYMMDD", "DD/MM/YYYY HH:mm")


def date_reader(form: str) -> Callable[[str], int]:
    """Return what reads a cell of this form as seconds; NO_DATE for any other cell."""
    pattern = re.compile(_ISO if form == ISO else _pattern(form), re.ASCII)

    def read(cell: str) -> int:
        match = pattern.fullmatch(cell)
        if match is None:
            return NO_DATE
        parts = {name: int(text) for name, text in match.groupdict().items() if text}
        month = parts.get("MM", 7)
        day = parts.get("DD", 15 if "MM" in parts else 1)
        hour, minute, second = (parts.get(name, 0) for name in ("HH", "mm", "ss"))
        try:
            moment = datetime.datetime(parts["YYYY"], month, day, hour, minute, second)
        except ValueError:
            return NO_DATE
        return moment.toordinal() * DAY_S + hour * 3600 + minute * 60 + second

    return read


def _pattern(form: str) -> str:
    """Return the regular expression of a form; a day or month beside signs may have one digit."""
    pattern, end = "", 0
    for part in DATE_PARTS.finditer(form):
        before, after = form[part.start() - 1 : part.start()], form[part.end() : part.end() + 1]
        loose = part[0] in ("DD", "MM") and not (before.isalnum() or after.isalnum())
        digits = "[0-9]{1,2}" if loose else _PATTERNS.get(part[0], "[0-9]{2}")
        pattern += f"{re.escape(form[end : part.start()])}(?P<{part[0]}>{digits})"
        end = part.end()
    return pattern + re.escape(form[end:])


def between(start: NDArray[np.int64], end: NDArray[np.int64], unit: str) -> NDArray[np.float64]:
    """Return (rows,) the time from one date to the other; NaN where one is unknown.

    Args:
        unit: one of configs.schema.mapping.DURATIONS. A month is 30.4375 days, a year 365.25; whole years are the
            birthdays that have passed.
    """
    unknown = (start == NO_DATE) | (end == NO_DATE)
    first, last = np.where(unknown, 0, start), np.where(unknown, 0, end)
    if unit == "whole years":
        time = ((_calendar(last) - _calendar(first)) // 10_000).astype(np.float64)
    else:
        time = (last - first) / _LENGTHS_S[unit]
    return np.where(unknown, np.nan, time)


def _calendar(seconds: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (rows,) dates as the number YYYYMMDD, so that the difference of two tells the birthdays between them."""
    days = (seconds // DAY_S - datetime.date(1970, 1, 1).toordinal()).astype("datetime64[D]")
    months = days.astype("datetime64[M]")
    years = months.astype("datetime64[Y]")
    year, month = years.astype(np.int64) + 1970, (months - years).astype(np.int64) + 1
    day = (days - months).astype(np.int64) + 1
    numbers: NDArray[np.int64] = year * 10_000 + month * 100 + day
    return numbers


def likely_form(cells: Collection[str]) -> str:
    """Return the first usual form that nine of ten of these cells have, empty where there is none.

    >>> likely_form(["2020-01-31", "2021-02-01"]), likely_form(["soon"])
    ('YYYY-MM-DD', '')
    """
    readers = ((form, date_reader(form)) for form in _USUAL)
    return next(
        (form for form, read in readers if sum(read(cell) != NO_DATE for cell in cells) >= 0.9 * len(cells)), ""
    )
