"""The settled rule of windows."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from naturelm.errors import NaturelmError
from naturelm.windows import MIN_LENGTH_S, MIN_NEW_S, plan_windows


def spans(duration_s: float, window_s: float = 10.0, hop_s: float = 10.0) -> list[tuple[float, float]]:
    return [(w.start_s, w.end_s) for w in plan_windows(duration_s, window_s, hop_s)]


def test_windows_tile_a_recording_of_whole_windows():
    assert spans(30.0) == [(0, 10), (10, 20), (20, 30)]


def test_last_partial_window_is_kept_and_ends_with_the_recording():
    assert spans(25.5) == [(0, 10), (10, 20), (20, 25.5)]


def test_tail_that_brings_less_than_half_a_second_has_no_window_of_its_own():
    assert spans(20.49) == [(0, 10), (10, 20)]
    assert spans(20.5) == [(0, 10), (10, 20), (20, 20.5)]


def test_overlapping_windows_stop_after_the_first_that_reaches_the_end():
    assert spans(20.0, 10.0, 5.0) == [(0, 10), (5, 15), (10, 20)]
    assert spans(22.0, 10.0, 5.0) == [(0, 10), (5, 15), (10, 20), (15, 22)]


def test_recording_under_half_a_second_has_no_windows():
    assert spans(0.0) == spans(0.49) == []
    assert spans(0.5) == [(0, 0.5)]


def test_window_starts_do_not_drift_over_a_day():
    assert plan_windows(86_400.0, 0.3, 0.1)[863_000].start_s == 863_000 * 0.1


@given(
    duration_s=st.floats(0, 500),
    window_s=st.floats(0.5, 30),
    overlap=st.floats(0.05, 1),
)
def test_no_sound_but_a_short_tail_goes_unheard(duration_s, window_s, overlap):
    windows = plan_windows(duration_s, window_s, max(MIN_LENGTH_S, window_s * overlap))
    covered_s = 0.0
    for index, window in enumerate(windows):
        assert window.index == index
        assert window.start_s <= covered_s + 1e-6
        assert window.end_s <= duration_s
        covered_s = window.end_s
    assert duration_s - covered_s < MIN_NEW_S + 1e-6


@pytest.mark.parametrize(
    ("window_s", "hop_s"), [(0, 1), (-10, 1), (10, 0), (10, -5), (10, 20), (math.nan, 1), (10, math.inf)]
)
def test_unusable_window_or_hop_is_refused_with_its_value(window_s, hop_s):
    with pytest.raises(NaturelmError, match=r"(window|hop) is .* s"):
        plan_windows(60.0, window_s, hop_s)
