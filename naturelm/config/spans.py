"""Spans of dates and of hours as people write them: `2019-05-20..2019-05-22`, `04:00-08:00`."""

from __future__ import annotations

import datetime as dt
import re

from naturelm.errors import NaturelmError

DAY_MINUTES = 24 * 60

DateSpans = tuple[tuple[dt.date, dt.date], ...]
HourSpans = tuple[tuple[int, int], ...]

_CLOCK = re.compile(r"(\d{1,2})(?::(\d\d))?")


def parse_dates(text: str) -> DateSpans:
    """Read dates and spans of dates, with commas between: `2019-05-20,2019-06-01..2019-06-07`.

    Returns
    -------
    tuple of (date, date)
        First and last day of each span; both belong to it.

    Raises
    ------
    NaturelmError
        A date is invalid, or a span ends before it begins.
    """
    spans = []
    for part in text.split(","):
        first, dots, last = part.strip().partition("..")
        try:
            span = (
                dt.date.fromisoformat(first.strip()),
                dt.date.fromisoformat((last if dots else first).strip()),
            )
        except ValueError:
            raise NaturelmError(
                f"{part.strip()!r} is not a valid date; give 2019-05-20, 2019-05-20..2019-05-22 or a list"
            ) from None
        if span[1] < span[0]:
            raise NaturelmError(f"{part.strip()!r} ends before it begins; swap the two dates")
        spans.append(span)
    return tuple(spans)


def parse_hours(text: str) -> HourSpans:
    """Read spans of the day, with commas between: `04:00-08:00,20:00-02:00`.

    Returns
    -------
    tuple of (int, int)
        Minutes after midnight, the second one excluded; a span over midnight becomes two.

    Raises
    ------
    NaturelmError
        An hour is invalid, or a span is empty.
    """
    spans: list[tuple[int, int]] = []
    for part in text.split(","):
        start, dash, end = (piece.strip() for piece in part.partition("-"))
        first, last = _minutes(start), _minutes(end)
        if not dash or first is None or last is None:
            raise NaturelmError(
                f"{part.strip()!r} is not a valid span of hours; give 04:00-08:00, 22:00-02:00 or a list"
            )
        if first in (last, DAY_MINUTES):
            raise NaturelmError(f"{part.strip()!r} is empty; give an end after the start")
        spans += [(first, last)] if first < last else [(first, DAY_MINUTES), (0, last)]
    return tuple(span for span in spans if span[0] < span[1])


def _minutes(clock: str) -> int | None:
    match = _CLOCK.fullmatch(clock)
    if match is None:
        return None
    hour, minute = int(match[1]), int(match[2] or 0)
    return 60 * hour + minute if minute < 60 and 60 * hour + minute <= DAY_MINUTES else None
