"""Stations files: places, time zones with daylight saving, deployments and clock drift."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from naturelm.errors import NaturelmError
from naturelm.recordings import Recording
from naturelm.recordings.stations import Stations, read_stations


def stations(tmp_path: Path, text: str) -> Stations:
    path = tmp_path / "stations.csv"
    path.write_text(text, encoding="utf-8")
    return read_stations(path)


def recording(start: datetime | None = datetime(2024, 7, 1, 4), **facts) -> Recording:
    source = "name" if start else None
    return Recording(
        **{"recording_id": "ab" * 16, "path": "a.wav", "root": "/r", "station": "A"} | facts,
        start_local=start,
        start_time_source=source,
    )


def in_utc(start: datetime, **facts) -> Recording:
    """As an AudioMoth writes it whose clock runs in UTC."""
    return replace(
        recording(start, **facts),
        start_time=start.replace(tzinfo=UTC),
        utc_offset_minutes=0,
        start_time_source="audiomoth",
    )


def test_place_and_deployment_are_filled_in_and_overrule_the_file(tmp_path):
    known = stations(tmp_path, "station,latitude,longitude,deployment\nA,52.1,4.4,spring\n")
    for before in (recording(), recording(latitude=1.0, longitude=2.0)):
        after = known.describe(before)
        assert (after.latitude, after.longitude, after.deployment) == (52.1, 4.4, "spring")
        assert (after.start_local, after.start_time_source) == (before.start_local, "name")


def test_empty_cells_leave_what_the_file_says(tmp_path):
    known = stations(tmp_path, "station,latitude,longitude,timezone\nA,,,\n")
    before = recording(latitude=1.0, longitude=2.0)
    assert known.describe(before) == before


def test_other_stations_stay_as_they_are(tmp_path):
    known = stations(tmp_path, "station,timezone\nB,UTC+2\n")
    before = recording()
    assert known.describe(before) is before


@pytest.mark.parametrize(
    ("zone", "month", "offset_minutes"),
    [
        ("Europe/Amsterdam", 1, 60),
        ("Europe/Amsterdam", 7, 120),
        ("Australia/Adelaide", 7, 570),
        ("Asia/Kathmandu", 1, 345),
        ("UTC", 7, 0),
        ("UTC+10", 7, 600),
        ("-03:30", 7, -210),
        ("GMT-5", 1, -300),
        ("+0545", 1, 345),
    ],
)
def test_time_zone_gives_local_recordings_their_utc(tmp_path, zone, month, offset_minutes):
    start = datetime(2024, month, 1, 4)
    after = stations(tmp_path, f"station,timezone\nA,{zone}\n").describe(recording(start))
    assert after.start_local == start
    assert after.start_time == start.replace(tzinfo=UTC) - timedelta(minutes=offset_minutes)
    assert (after.utc_offset_minutes, after.start_time_source) == (offset_minutes, "name+timezone")


def test_recorder_that_knows_utc_gets_the_stations_local_time(tmp_path):
    after = stations(tmp_path, "station,timezone\nA,Australia/Sydney\n").describe(
        in_utc(datetime(2024, 7, 1, 19))
    )
    assert after.start_time == datetime(2024, 7, 1, 19, tzinfo=UTC)
    assert (after.start_local, after.utc_offset_minutes) == (datetime(2024, 7, 2, 5), 600)
    assert after.start_time_source == "audiomoth+timezone"


def test_night_in_which_the_clocks_go_back_has_every_half_hour_once_in_utc(tmp_path):
    known = stations(tmp_path, "station,timezone\nA,Europe/Amsterdam\n")
    night = [
        known.describe(in_utc(datetime(2024, 10, 26, 22) + timedelta(minutes=30 * n))) for n in range(10)
    ]
    assert [f"{r.start_local:%H:%M}" for r in night] == [
        *("00:00", "00:30", "01:00", "01:30", "02:00", "02:30"),
        *("02:00", "02:30", "03:00", "03:30"),
    ]
    assert [r.utc_offset_minutes for r in night] == [120] * 6 + [60] * 4
    utc = [r.start_time for r in night]
    assert [b - a for a, b in itertools.pairwise(utc)] == [timedelta(minutes=30)] * 9


def test_night_in_which_the_clocks_go_forward_skips_an_hour(tmp_path):
    known = stations(tmp_path, "station,timezone\nA,Europe/Amsterdam\n")
    night = [known.describe(in_utc(datetime(2024, 3, 31, 0) + timedelta(minutes=30 * n))) for n in range(4)]
    assert [f"{r.start_local:%H:%M}" for r in night] == ["01:00", "01:30", "03:00", "03:30"]


@pytest.mark.parametrize(
    ("start", "is_known"),
    [
        (datetime(2024, 10, 27, 1, 59), True),
        (datetime(2024, 10, 27, 2, 30), False),  # twice
        (datetime(2024, 10, 27, 3, 0), True),
        (datetime(2024, 3, 31, 1, 59), True),
        (datetime(2024, 3, 31, 2, 30), False),  # never
        (datetime(2024, 3, 31, 3, 0), True),
    ],
)
def test_local_time_that_is_there_twice_or_never_has_no_utc(tmp_path, start, is_known):
    after = stations(tmp_path, "station,timezone\nA,Europe/Amsterdam\n").describe(recording(start))
    assert after.start_local == start
    assert (after.start_time is not None) == (after.utc_offset_minutes is not None) == is_known
    assert after.start_time_source == ("name+timezone" if is_known else "name")


def test_recorder_on_winter_time_all_year_has_a_fixed_offset_and_no_doubt(tmp_path):
    after = stations(tmp_path, "station,timezone\nA,UTC+1\n").describe(
        recording(datetime(2024, 10, 27, 2, 30))
    )
    assert after.start_time == datetime(2024, 10, 27, 1, 30, tzinfo=UTC)


DEPLOYMENTS = """station,latitude,longitude,deployment,start,end
A,52.1,4.4,spring,2024-03-01,2024-05-31
A,52.2,4.5,autumn,2024-09-01T12:00,2024-10-31
"""


@pytest.mark.parametrize(
    ("start", "deployment"),
    [
        (datetime(2024, 2, 29, 23, 59), None),
        (datetime(2024, 3, 1), "spring"),
        (datetime(2024, 5, 31, 23, 59), "spring"),
        (datetime(2024, 6, 1), None),
        (datetime(2024, 9, 1, 11, 59), None),
        (datetime(2024, 9, 1, 12), "autumn"),
        (None, None),
    ],
)
def test_deployment_holds_from_its_start_through_its_last_day(tmp_path, start, deployment):
    assert stations(tmp_path, DEPLOYMENTS).describe(recording(start)).deployment == deployment


def test_start_and_end_are_local_at_the_station(tmp_path):
    text = "station,timezone,deployment,start,end\nA,Australia/Sydney,winter,2024-07-02,2024-07-02\n"
    assert stations(tmp_path, text).describe(in_utc(datetime(2024, 7, 1, 15))).deployment == "winter"
    assert stations(tmp_path, text).describe(in_utc(datetime(2024, 7, 1, 13))).deployment is None


def test_recording_of_unknown_time_belongs_to_the_only_deployment(tmp_path):
    text = "station,latitude,longitude,timezone,deployment\nA,52.1,4.4,UTC+2,only\n"
    after = stations(tmp_path, text).describe(recording(None))
    assert (after.latitude, after.deployment, after.start_local, after.start_time) == (
        52.1,
        "only",
        None,
        None,
    )


@pytest.mark.parametrize(
    ("day", "late_s"), [(1, 0.0), (6, 5.0), (11, 10.0)], ids=["at the start", "half way", "at the end"]
)
def test_clock_that_runs_fast_is_put_right_little_by_little(tmp_path, day, late_s):
    text = "station,timezone,start,end,clock_drift_s\nA,UTC+2,2024-05-01T00:00:00,2024-05-11T00:00:01,10\n"
    clock = datetime(2024, 5, day)
    after = stations(tmp_path, text).describe(recording(clock))
    assert (clock - after.start_local).total_seconds() == pytest.approx(late_s, abs=1e-3)
    assert after.start_time.replace(tzinfo=None) == after.start_local - timedelta(hours=2)
    assert (after.utc_offset_minutes, after.start_time_source) == (120, "name+timezone+drift")


def test_drift_is_corrected_where_only_local_time_is_known(tmp_path):
    text = "station,start,end,clock_drift_s\nA,2024-05-01,2024-05-10,-20\n"
    after = stations(tmp_path, text).describe(recording(datetime(2024, 5, 6)))
    assert after.start_local == datetime(2024, 5, 6, 0, 0, 10)
    assert (after.start_time, after.start_time_source) == (None, "name+drift")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name\nA\n", "the first line has no column station; the columns are station, latitude"),
        ("latitude,longitude\n1,2\n", "no column station"),
        ("station\n", "names no station"),
        ("station,latitude,longitude\nA,91,2\n", "line 2: '91', '2' is not a position"),
        ("station,latitude,longitude\nA,52.1,\n", "line 2: '52.1', '' is not a position"),
        ("station,latitude\n,5\n", "line 2: has no station"),
        ("station,timezone\nA,UTC\nB,Europe/Atlantis\n", "line 3: timezone is 'Europe/Atlantis'"),
        ("station,timezone\nA,../../etc/passwd\n", "line 2: timezone is"),
        ("station,timezone\nA,UTC+25\n", "line 2: timezone is 'UTC+25'"),
        ("station,start\nA,May\n", "line 2: start is 'May'; give a date or a local time"),
        ("station,start\nA,2024-05-01T00:00Z\n", "give local time, without an offset"),
        ("station,start,end\nA,2024-05-02,2024-05-01\n", "ends (2024-05-01) before it starts"),
        ("station,clock_drift_s\nA,5\n", "clock_drift_s needs start and end"),
        ("station,start,end,clock_drift_s\nA,2024-05-01,2024-05-02,fast\n", "clock_drift_s is 'fast'"),
        ("station,start,end,clock_drift_s\nA,2024-05-01,2024-05-02,nan\n", "clock_drift_s is 'nan'"),
        ("station\nA\nA\n", "deployments of station 'A' overlap"),
        ("station,start,end\nA,2024-05-01,2024-05-31\nA,2024-05-31,2024-06-30\n", "'A' overlap"),
    ],
)
def test_mistake_in_the_file_is_one_sentence(tmp_path, text, expected):
    with pytest.raises(NaturelmError) as error:
        stations(tmp_path, text)
    assert expected in str(error.value)
    assert str(error.value).startswith(f"{tmp_path / 'stations.csv'}: ")


def test_file_that_is_not_there_or_no_text_is_told(tmp_path):
    with pytest.raises(NaturelmError, match="cannot read the stations"):
        read_stations(tmp_path / "none.csv")
    (tmp_path / "stations.csv").write_bytes("station\nÜ".encode("cp1252"))
    with pytest.raises(NaturelmError, match="not UTF-8"):
        read_stations(tmp_path / "stations.csv")


def test_spreadsheets_write_a_mark_first_and_blanks(tmp_path):
    path = tmp_path / "stations.csv"
    path.write_bytes("\ufeffstation, latitude ,longitude\r\n A , 52.1, 4.4\r\n".encode())
    assert read_stations(path).describe(recording()).latitude == 52.1


def test_a_station_is_the_same_in_both_unicode_forms_wherever_it_is_written(tmp_path):
    """Folders of macOS are decomposed; what people type is composed."""
    from naturelm.archive.scan import scan_archive
    from tests.archive.stub_runs import record, settings

    composed_name, decomposed = "H\u00f6hle", "Ho\u0308hle"
    record(tmp_path / "archive" / decomposed / "20240510_053000.wav", 1, seconds=12)
    record(tmp_path / "archive" / f"{decomposed}_20240511_053000.wav", 2, seconds=12)
    for written in (composed_name, decomposed):
        (tmp_path / "stations.csv").write_text(f"station,timezone\n{written},UTC+1\n", "utf-8")
        for section in ({}, {"name_pattern": "{station}_%Y%m%d_%H%M%S"}):
            config = settings(
                recordings=section, selection={"stations": (written,)}, stations_file=str(tmp_path / "stations.csv"),
                queries=[{"id": "q", "prompt": "?", "kind": "classification", "labels": ("a",),
                          "station_labels": [{"station": written, "labels": ("b",)}]}],
            )  # fmt: skip
            found = scan_archive([tmp_path / "archive"], tmp_path / "out", config)
            assert {recording.station for recording in found.recordings} == {composed_name}
            assert all(recording.start_time is not None for recording in found.recordings)
            assert config.queries[0].labels_at(composed_name) == ("b",)
