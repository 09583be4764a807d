"""Cutting recordings into segments and grouping them into reads."""

from __future__ import annotations

import datetime as dt
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from naturelm.config.archive import WindowSettings
from naturelm.recordings import Recording
from naturelm.segments import Day, cut_segments, group_reads
from naturelm.windows import plan_windows

TENS = WindowSettings()


def recording(duration_s: float | None = 60.0, **facts) -> Recording:
    return Recording(
        **{"recording_id": "ab" * 16, "path": "S1/a.wav", "root": "/r", "station": "S1"} | facts,
        duration_s=duration_s,
    )


@given(
    duration_s=st.floats(0.5, 2000),
    window_s=st.sampled_from([3.0, 5.0, 10.0]),
    overlap=st.sampled_from([0.25, 0.5, 0.9, 1.0]),
    segment_windows=st.integers(1, 70),
)
def test_segments_hold_every_window_once_and_every_second_once(
    duration_s, window_s, overlap, segment_windows
):
    settings = WindowSettings(length_s=window_s, hop_s=window_s * overlap)
    segments = cut_segments(recording(duration_s), settings, segment_windows)
    windows = [window for segment in segments for window in segment.windows(duration_s, settings)]
    assert windows == plan_windows(duration_s, settings.length_s, settings.hop_s)
    assert segments[0].start_s == 0
    assert segments[-1].own_end_s == duration_s
    for before, after in itertools.pairwise(segments):
        assert before.own_end_s == after.start_s
        assert before.end_s >= after.start_s


def test_recording_that_ends_early_has_the_windows_of_its_sound():
    first, second = cut_segments(recording(60.0), TENS, 3)
    assert [w.end_s for w in first.windows(25.0, TENS)] == [10, 20, 25]
    assert second.windows(25.0, TENS) == []


@pytest.mark.parametrize("status", ["corrupt", "unsupported", "too_short"])
def test_recording_without_windows_is_one_empty_segment(status):
    (segment,) = cut_segments(recording(0.2, status=status), TENS, 60)
    assert (segment.window_count, segment.first_window) == (0, 0)


def test_long_seekable_recording_is_read_by_several_and_committed_parts_are_not_read_again():
    segments = cut_segments(recording(3600.0), TENS, 60)
    reads = group_reads(segments, done={segments[2].id})
    assert len(reads) == 5
    assert all(len(read.segments) == 1 for read in reads)
    assert segments[2].id not in {read.segments[0].id for read in reads}


def test_mp3_is_read_once_in_order():
    segments = cut_segments(recording(3600.0, seekable=False), TENS, 60)
    (read,) = group_reads(segments, done={segments[0].id})
    assert [segment.first_window for segment in read.segments] == [60, 120, 180, 240, 300]


def test_longest_reads_come_first():
    short = recording(20.0, recording_id="cd" * 16)
    reads = group_reads([*cut_segments(short, TENS, 60), *cut_segments(recording(300.0), TENS, 60)], done=())
    assert [read.sound_s for read in reads] == [300.0, 20.0]


def test_day_is_the_local_date_on_which_the_recording_starts():
    late = recording(
        start_local=dt.datetime(2024, 5, 1, 23, 59, 59), start_time=dt.datetime(2024, 5, 2, 4, tzinfo=dt.UTC)
    )
    assert Day.of(late) == Day("S1", "2024-05-01")
    assert Day.of(recording()) == Day("S1", "")
