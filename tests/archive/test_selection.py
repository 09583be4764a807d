"""Choosing dates, hours, stations and a sample: whole segments, every row once, whatever is chosen later."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from naturelm.archive.selection import Selection, even_order, in_order, start_of
from naturelm.config.loading import load_archive_config
from naturelm.recordings import Recording
from naturelm.segments import cut_segments, group_reads
from tests.archive.stub_runs import process, record, rows, settings, tables


def season(stations: int = 2, days: int = 4, minutes: int = 60) -> list[Recording]:
    """A recording at the top of every hour."""
    return [
        Recording(
            recording_id=f"{station:016x}{day:08x}{hour:08x}",
            path=f"S{station}/{day}-{hour:02}.wav",
            root="/r",
            station=f"S{station}",
            start_local=datetime(2024, 5, 1 + day, hour),
            duration_s=60.0 * minutes,
        )
        for station in range(stations)
        for day in range(days)
        for hour in range(24)
    ]


def chosen(recordings: list[Recording], segment_windows: int = 60, **wanted):
    config = load_archive_config(None, {"selection": wanted})
    segments = [s for r in recordings for s in cut_segments(r, config.windows, segment_windows)]
    return Selection(config.selection, config.windows.hop_s).choose(segments)


def reads(recordings: list[Recording], order: str, segment_windows: int = 60):
    config = load_archive_config(None, {})
    segments = [s for r in recordings for s in cut_segments(r, config.windows, segment_windows)]
    return in_order(group_reads(segments, ()), order)


def test_hours_are_local_and_end_before_their_end():
    starts = [start_of(segment) for segment in chosen(season(1, 2), hours="04:00-06:00")]
    assert {start.hour for start in starts} == {4, 5}
    assert len(starts) == 2 * 2 * 6


def test_hours_may_wrap_around_midnight():
    assert {start_of(s).hour for s in chosen(season(1, 1), hours="22:00-02:00")} == {22, 23, 0, 1}


def test_dates_go_by_when_the_sound_was_made():
    late = Recording(
        "ab" * 16, "a.wav", "/r", "S", start_local=datetime(2024, 5, 1, 23, 30), duration_s=3600.0
    )
    starts = [start_of(segment) for segment in chosen([late], dates="2024-05-02")]
    assert starts == [datetime(2024, 5, 2, 0, minute) for minute in (0, 10, 20)]


def test_segment_that_reaches_into_the_hours_is_taken_whole():
    odd = Recording("ab" * 16, "a.wav", "/r", "S", start_local=datetime(2024, 5, 1, 3, 55), duration_s=3600.0)
    assert [start_of(s).minute for s in chosen([odd], hours="04:00-04:10")] == [55, 5]


def test_recording_of_a_whole_day_is_chosen_in_part():
    day = Recording("ab" * 16, "a.wav", "/r", "S", start_local=datetime(2024, 5, 1), duration_s=86_400.0)
    assert len(chosen([day], hours="04:00-08:00")) == 24


def test_unknown_time_is_within_no_hours():
    unknown = Recording("ab" * 16, "a.wav", "/r", "S", duration_s=60.0)
    assert chosen([unknown], hours="00:00-24:00") == []
    assert chosen([unknown], dates="1900-01-01..2100-01-01") == []
    assert len(chosen([unknown], stations=["S"])) == 1


def test_sample_is_even_over_stations_hours_and_dates():
    sample = chosen(season(2, 20, minutes=10), sample=0.1)
    assert Counter((s.recording.station, start_of(s).hour) for s in sample) == {
        (station, hour): 2 for station in ("S0", "S1") for hour in range(24)
    }
    per_date = Counter(start_of(s).date() for s in sample)
    assert len(per_date) == 20
    assert max(per_date.values()) <= 3 * min(per_date.values())


def test_larger_sample_holds_the_smaller_one():
    small, large = ({s.id for s in chosen(season(), sample=share)} for share in (0.1, 0.3))
    assert small < large
    assert {s.id for s in chosen(season()[::-1], sample=0.1)} == small


@pytest.mark.parametrize("count", [1, 2, 7, 64, 1000])
def test_even_order_is_a_permutation_whose_every_beginning_is_spread(count):
    order = even_order(count).tolist()
    assert sorted(order) == list(range(count))
    for size in (2, 5, 33):
        if size <= count:
            begun = sorted(order[:size])
            gaps = [b - a for a, b in zip(begun, [*begun[1:], begun[0] + count], strict=True)]
            assert max(gaps) <= 4 * count / size


def test_any_beginning_of_a_spread_night_is_an_even_sample():
    work = reads(season(3, 14, minutes=10), "spread")
    for part in (0.1, 0.25, 0.5):
        done = [read.segments[0] for read in work[: round(part * len(work))]]
        hours = Counter((s.recording.station, start_of(s).hour) for s in done)
        assert len(hours) == 3 * 24
        assert max(hours.values()) - min(hours.values()) <= 1
        dates = Counter(start_of(s).date() for s in done)
        assert len(dates) == 14
        assert max(dates.values()) <= 2 * len(done) / 14


def test_oldest_and_newest_first():
    oldest = [start_of(read.segments[0]) for read in reads(season(2, 2), "oldest")]
    assert oldest == sorted(oldest)
    assert [start_of(read.segments[0]) for read in reads(season(2, 2), "newest")] == oldest[::-1]


def test_unknown_time_comes_last():
    unknown = Recording("ab" * 16, "a.wav", "/r", "S", duration_s=60.0)
    for order in ("oldest", "newest", "dawn-first"):
        assert reads([unknown, *season(1, 1)], order)[-1].recording is unknown


@pytest.mark.parametrize(
    ("month", "day", "first_h"),
    [
        (3, 20, {5, 6}),  # sunrise at 05:43
        (1, 25, {9, 10}),  # the sun is back for a short while: 10:26
        (6, 21, {5, 6}),  # it does not set: six o'clock stands for dawn
    ],
)
def test_dawn_in_tromso_comes_first_when_the_sun_rises_there(month, day, first_h):
    night = [
        replace(
            recording,
            latitude=69.65,
            longitude=18.96,
            utc_offset_minutes=60,
            start_local=recording.start_local.replace(month=month, day=day),
        )
        for recording in season(1, 1)
    ]
    work = reads(night, "dawn-first")
    assert {start_of(read.segments[0]).hour for read in work[:6]} <= first_h


def test_where_the_place_is_not_known_dawn_is_at_six():
    assert {start_of(read.segments[0]).hour for read in reads(season(1, 1), "dawn-first")[:6]} == {5, 6}


# --- with an output directory


@pytest.fixture
def archive(tmp_path) -> Path:
    # Two minutes around 04:00 in segments of 20 s, and an hour that no one asks for.
    record(tmp_path / "archive/A/20240501_035900.wav", 1, seconds=125)
    record(tmp_path / "archive/A/20240501_120000.wav", 2)
    record(tmp_path / "archive/B/20240501_040000.wav", 3)
    return tmp_path / "archive"


def everything(archive: Path, tmp_path: Path) -> dict[str, bytes]:
    process(archive, tmp_path / "everything")
    return tables(tmp_path / "everything")


def test_hours_first_and_all_later_is_the_same_as_all_at_once(archive, tmp_path):
    out = tmp_path / "out"
    first = process(archive, out, settings(selection={"hours": "04:00-04:01"}))
    assert first.places == [
        ("A/20240501_035900.wav", 6),
        ("A/20240501_035900.wav", 8),
        ("A/20240501_035900.wav", 10),
        *(("B/20240501_040000.wav", number) for number in (0, 2, 4)),
    ]
    assert process(archive, out, settings(selection={"hours": "04:00-04:01"})).done == []
    rest = process(archive, out)
    assert not set(first.places) & set(rest.places)
    assert tables(out) == everything(archive, tmp_path)


def test_recording_done_in_part_says_how_much_of_it_was_heard(archive, tmp_path):
    process(archive, tmp_path / "out", settings(selection={"hours": "04:00-04:01"}))
    by_path = {row["path"]: row for row in rows(tmp_path / "out", "recordings")}
    row = by_path["A/20240501_035900.wav"]
    assert (row["duration_s"], row["decoded_s"], row["windows"], row["status"]) == (125.0, 60.0, 6, "ok")
    assert "A/20240501_120000.wav" not in by_path


@pytest.mark.parametrize(
    "steps",
    [
        [{"sample": 0.3}, {"sample": 0.6}],
        [{"stations": ["B"]}, {"hours": "12:00-13:00"}],
        [{"hours": "03:00-04:00"}, {"dates": "2024-05-01"}],
        [{"sample": 0.4, "order": "spread"}, {"order": "dawn-first"}],
    ],
)
def test_whatever_was_chosen_before_every_segment_is_done_once(archive, tmp_path, steps):
    places = []
    for step in [*steps, {}]:
        places += process(archive, tmp_path / "out", settings(selection=step)).places
    assert len(places) == len(set(places)) == 7 + 4 + 4
    assert tables(tmp_path / "out") == everything(archive, tmp_path)


def test_same_sample_again_has_nothing_to_do(archive, tmp_path):
    sample = settings(selection={"sample": 0.3})
    # A third of 3 and of 4, rounded up: one at 03, two at 04 and two at 12 o'clock at A, two at 04 at B.
    assert len(process(archive, tmp_path / "out", sample).done) == 7
    assert process(archive, tmp_path / "out", sample).done == []


def test_run_with_another_choice_publishes_what_an_interrupted_one_staged(archive, tmp_path):
    interrupted = process(archive, tmp_path / "out", limit=4)
    rest = process(archive, tmp_path / "out", settings(selection={"stations": ["B"]}))
    assert not set(interrupted.places) & set(rest.places)
    assert not [path for path in (tmp_path / "out/_staging").rglob("*") if path.is_file()]
    process(archive, tmp_path / "out")
    assert tables(tmp_path / "out") == everything(archive, tmp_path)


def test_recording_done_in_part_is_carried_over_with_its_parts(archive, tmp_path):
    process(archive, tmp_path / "out", settings(selection={"hours": "04:00-04:01"}))
    (archive / "A/20240501_035900.wav").rename(archive / "A/20240507_035900.wav")
    rest = process(archive, tmp_path / "out")
    assert [place for place in rest.places if "07_" in place[0]] == [
        ("A/20240507_035900.wav", number) for number in (0, 2, 4, 12)
    ]
    assert tables(tmp_path / "out") == everything(archive, tmp_path)


def test_retry_does_failed_recordings_again_and_no_other(archive, tmp_path):
    name = "A/20240501_035900.wav"
    process(archive, tmp_path / "out", failing=[name])
    assert process(archive, tmp_path / "out").done == []
    retried = process(archive, tmp_path / "out", settings(selection={"stations": ["B"]}), retry_failed=True)
    assert {path for path, _ in retried.places} == {name}
    assert tables(tmp_path / "out") == everything(archive, tmp_path)
    assert process(archive, tmp_path / "out", retry_failed=True).done == []


def test_retry_of_a_recording_done_in_part_does_its_failed_segments(archive, tmp_path):
    name, early = "A/20240501_035900.wav", settings(selection={"hours": "03:00-04:00"})
    process(archive, tmp_path / "out", early, failing=[name])
    retried = process(archive, tmp_path / "out", early, retry_failed=True)
    assert retried.places == [(name, 0), (name, 2), (name, 4)]
    process(archive, tmp_path / "out")
    assert tables(tmp_path / "out") == everything(archive, tmp_path)


def test_interrupted_retry_keeps_what_it_did(archive, tmp_path):
    name = "A/20240501_035900.wav"
    process(archive, tmp_path / "out", failing=[name])
    begun = process(archive, tmp_path / "out", retry_failed=True, limit=3)
    rest = process(archive, tmp_path / "out", retry_failed=True)
    assert (len(begun.places), len(rest.places)) == (3, 4)
    assert tables(tmp_path / "out") == everything(archive, tmp_path)
