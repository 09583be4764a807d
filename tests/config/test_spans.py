"""Spans of dates and hours as people write them."""

from __future__ import annotations

from datetime import date

import pytest

from naturelm.config.spans import parse_dates, parse_hours
from naturelm.errors import NaturelmError


def test_dates_alone_in_spans_and_in_lists():
    assert parse_dates("2019-05-20") == ((date(2019, 5, 20), date(2019, 5, 20)),)
    assert parse_dates("2019-05-20..2019-05-22, 2020-01-01") == (
        (date(2019, 5, 20), date(2019, 5, 22)),
        (date(2020, 1, 1), date(2020, 1, 1)),
    )


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("04:00-08:00", ((240, 480),)),
        ("4-8", ((240, 480),)),
        ("22:30-02:00", ((1350, 1440), (0, 120))),
        ("22:00-00:00", ((1320, 1440),)),
        ("22:00-24:00", ((1320, 1440),)),
        ("00:00-24:00", ((0, 1440),)),
        ("04:00-06:00,20:00-21:30", ((240, 360), (1200, 1290))),
    ],
)
def test_hours(text, spans):
    assert parse_hours(text) == spans


@pytest.mark.parametrize(
    "text", ["", "20 May", "2019-05-20..", "2019-13-01", "2019-05-22..2019-05-20", "..2019-05-20"]
)
def test_what_is_no_date_is_told(text):
    with pytest.raises(NaturelmError, match="date"):
        parse_dates(text)


@pytest.mark.parametrize(
    "text", ["", "04:00", "04:00-", "25:00-26:00", "04:60-05:00", "dawn-dusk", "04:00-04:00", "24:00-04:00"]
)
def test_what_is_no_span_of_the_day_is_told(text):
    with pytest.raises(NaturelmError, match=r"hours|empty"):
        parse_hours(text)
