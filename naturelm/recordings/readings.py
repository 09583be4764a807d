"""Digits in a file name that no known recorder writes so: all the ways in which they may be a date and a time.

Six digits are a date where one order of day, month and year alone gives a day of the years in which recorders have been
used, and `25-12-2024` because no month is the 25th.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from naturelm.config.name_pattern import GivenPattern

# Of a date of six digits and a time to the minute.
_LEAST_DIGITS = 10
# Years of which two digits may speak: autonomous recorders are hardly older.
_FIRST_YEAR, _LAST_YEAR = 2005, 2049


@dataclass(frozen=True)
class Reading:
    """One of the ways in which digits in no known form may be a date and a time.

    Attributes
    ----------
    pattern : str
        What the user writes for the digits.
    start_local : datetime
    start, end : int
        Where the digits are in the name.
    is_sure : bool
        Nothing but a time has this form, so that a reading without others is the right one.
    """

    pattern: str
    start_local: datetime
    start: int
    end: int
    is_sure: bool


def _loose(
    form: str, *orders: str, sure: tuple[str, ...] = ()
) -> tuple[re.Pattern[str], tuple[str, ...], frozenset[str]]:
    return re.compile(rf"(?<!\d){form}(?!\d)"), (*sure, *orders), frozenset(sure)


# Digits in no form that only one recorder writes; for each order that they may have, what the user writes for it.
_LOOSE_FORMS = (
    _loose(r"\d{6}([_T \-])\d{6}", sure=(r"%y%m%d\1%H%M%S", r"%d%m%y\1%H%M%S", r"%m%d%y\1%H%M%S")),
    _loose(
        r"\d\d([-._])\d\d\1(?:19|20)\d\d([_T \-])\d\d([-:._]?)\d\d\3\d\d",
        sure=(r"%d\1%m\1%Y\2%H\3%M\3%S", r"%m\1%d\1%Y\2%H\3%M\3%S"),
    ),
    _loose(
        r"\d{8}([_T \-])\d{6}",
        r"%Y%m%d\1%H%M%S",
        sure=(r"%d%m%Y\1%H%M%S", r"%m%d%Y\1%H%M%S"),
    ),
    _loose(r"\d{8}([_T \-])\d{4}", r"%Y%m%d\1%H%M", r"%d%m%Y\1%H%M"),
    _loose(r"(?:19|20)\d\d([-_.])\d\d\1\d\d([_ \-])\d{4}", r"%Y\1%m\1%d\2%H%M"),
    _loose(
        r"(?:19|20)\d\d([-_.])\d\d\1\d\d([_ \-])\d\d([-:_.])\d\d([-:_.])\d\d",
        r"%Y\1%m\1%d\2%H\3%M\4%S",
        r"%Y\1%m\1%d\2%H\3%M\4*",
    ),
    _loose(r"\d{6}([_T \-])\d{4}", r"%y%m%d\1%H%M", r"%d%m%y\1%H%M"),
    _loose(r"\d{14}", "%Y%m%d%H%M%S", "%d%m%Y%H%M%S"),
    _loose(r"\d{12}", "%y%m%d%H%M%S", "%Y%m%d%H%M", "%d%m%y%H%M%S"),
    _loose(r"1\d{9}", "%s"),
)


def readings(name: str) -> Iterator[Reading]:
    """All the ways in which digits of a name may be a time of the years in which recorders have been used."""
    if sum(map(str.isdigit, name)) < _LEAST_DIGITS:
        return
    for form, orders, sure in _LOOSE_FORMS:
        match = form.search(name)
        if match is None:
            continue
        for order in orders:
            pattern = match.expand(order)
            stated = GivenPattern(pattern).read(match[0] + ".wav")
            if (
                stated is not None
                and stated.start_local
                and _FIRST_YEAR <= stated.start_local.year <= _LAST_YEAR
            ):
                yield Reading(pattern, stated.start_local, match.start(), match.end(), order in sure)
        return
