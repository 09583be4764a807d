"""What is reported about an archive before the work: pauses, overlaps, broken files, expected time."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from naturelm.archive.plan import earlier_rate
from naturelm.archive.survey import survey
from naturelm.recordings import Recording
from naturelm.results.run_records import hardware


def schedule(minutes: list[float], station: str = "A", duration_s: float = 60.0, **facts) -> list[Recording]:
    start = datetime(2024, 5, 1)
    return [
        Recording(
            **{
                "recording_id": f"{station}{number}",
                "path": f"{station}/{number}.wav",
                "root": "/r",
                "station": station,
                "start_local": start + timedelta(minutes=minute),
                "duration_s": duration_s,
                "content": f"{station}{number}",
                "size_bytes": 1,
            }
            | facts
        )
        for number, minute in enumerate(minutes)
    ]


def test_schedule_that_is_kept_has_no_gaps():
    found = survey(schedule([0, 15, 30, 45, 60]))
    assert (found.gaps, found.overlaps) == ([], [])
    assert (found.recordings, found.sound_s, found.dates) == (5, 300.0, 1)


def test_missed_starts_are_gaps_the_longest_first():
    found = survey([*schedule([0, 15, 45, 60, 75, 150, 165]), *schedule([0, 60, 120, 180], "B")])
    assert [(gap.station, gap.after, gap.seconds) for gap in found.gaps] == [
        ("A", "A/4.wav", 74 * 60.0),
        ("A", "A/1.wav", 29 * 60.0),
    ]


def test_recordings_of_one_recorder_that_overlap_are_told():
    found = survey(schedule([0, 1, 2, 2.5, 4]))
    assert [(o.after, o.seconds, o.at) for o in found.overlaps] == [
        ("A/2.wav", -30.0, datetime(2024, 5, 1, 0, 2, 30))
    ]


def test_times_rounded_to_a_second_are_no_overlap():
    assert survey(schedule([0, 1, 2], duration_s=61.5)).overlaps == []


def test_two_recorders_do_not_overlap():
    assert survey([*schedule([0, 1]), *schedule([0, 1], "B")]).overlaps == []


def test_hour_that_daylight_saving_takes_away_is_no_gap():
    # 01:00, 03:00 and 04:00 on the clock, an hour apart.
    night = [
        Recording(
            f"{n}",
            f"{n}.wav",
            "/r",
            "A",
            start_local=datetime(2024, 3, 31, hour),
            start_time=datetime(2024, 3, 31, n, tzinfo=UTC),
            duration_s=3600.0,
        )
        for n, hour in enumerate((1, 3, 4, 5))
    ]
    assert survey(night).gaps == []


def test_broken_files_and_unknown_times_and_copies_are_counted():
    broken = schedule([0], "C", status="corrupt", error="the file is empty", duration_s=None)
    unknown = schedule([0, 1], "D", start_local=None)
    copies = schedule([0, 10, 20], "E", content="same")
    found = survey([*broken, *unknown, *copies])
    assert found.broken == ["C/0.wav: corrupt (the file is empty)"]
    assert (found.without_time, found.without_utc, found.copies) == (2, 4, 2)
    assert found.statuses == {"ok": 5, "corrupt": 1}
    assert found.stations["D"].first is None


def test_rate_is_that_of_the_newest_run_of_the_same_analysis_on_the_same_hardware(tmp_path):
    def run(name: str, windows: int, wall_s: float = 100.0, **other) -> None:
        record = {
            "analysis": "a",
            "hardware": hardware(),
            "started": f"2026-11-{name}T20:00:00+00:00",
            "counts": {"windows": windows, "wall_s": wall_s},
        }
        Path(tmp_path / "_runs").mkdir(exist_ok=True)
        (tmp_path / f"_runs/{name}.json").write_text(json.dumps(record | other))

    assert earlier_rate(tmp_path, "a") is None
    run("01", 10_000)
    run("02", 20_000)
    run("03", 90_000, analysis="b")
    run("04", 90_000, hardware=hardware() | {"cores": 999})
    run("05", 90_000, wall_s=3.0)
    run("06", 0)
    (tmp_path / "_runs/07.json").write_text('{"analysis": "a"')
    run("08", 90_000, counts=None)
    rate = earlier_rate(tmp_path, "a")
    assert (rate.windows_per_s, rate.source) == (200.0, "the run of 2026-11-02 20:00 UTC")
