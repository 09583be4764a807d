"""Durations and positions read the same everywhere."""

from __future__ import annotations

import pytest

from naturelm.text import duration, position


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0, "0 s"), (42.4, "42 s"), (119, "119 s"), (120, "2.0 min"), (3018, "50.3 min")),
        *((5999, "100.0 min"), (6000, "1.7 h"), (11_100, "3.1 h"), (4_000_000, "1,111.1 h")),
    ],
)
def test_duration_is_in_the_unit_that_reads_best(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (7.5, "0:07.5"), (59.96, "1:00"), (600, "10:00"), (3599.94, "59:59.9"), (3725, "1:02:05")],
)
def test_position_is_a_clock_with_tenths_where_there_are_any(seconds, text):
    assert position(seconds) == text
