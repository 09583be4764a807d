"""The user's pattern for names, and names that need one."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from naturelm.errors import NaturelmError
from naturelm.recordings import Recording
from naturelm.recordings.name_patterns import ambiguous_names, apply_pattern
from naturelm.recordings.names import parse_name

DAWN = datetime(2012, 5, 10, 5, 30)


def recording(path: str, **facts) -> Recording:
    return Recording(recording_id="ab" * 16, path=path, root="/r", station="r", **facts)


def test_pattern_gives_start_and_station_and_says_where_they_come_from() -> None:
    (after,) = apply_pattern([recording("a/pond_100512_053000.wav")], "{station}_%d%m%y_%H%M%S")
    assert (after.station, after.start_local, after.start_time) == ("pond", DAWN, None)
    assert after.start_time_source == "pattern"


def test_pattern_wins_over_metadata_and_keeps_an_offset_of_the_same_time() -> None:
    by_guano = recording(
        "100512_053000.wav",
        start_local=DAWN,
        start_time=DAWN.replace(tzinfo=UTC),
        start_time_source="guano",
        utc_offset_minutes=0,
    )
    (same,) = apply_pattern([by_guano], "%d%m%y_%H%M%S")
    assert same == replace(by_guano, start_time_source="pattern")
    (other,) = apply_pattern([by_guano], "%y%m%d_%H%M%S")
    assert (other.start_local, other.start_time, other.utc_offset_minutes) == (
        datetime(2010, 5, 12, 5, 30),
        None,
        None,
    )


def test_offset_in_the_name_gives_utc() -> None:
    (after,) = apply_pattern([recording("100512_053000+0200.wav")], "%d%m%y_%H%M%S%z")
    assert (after.utc_offset_minutes, after.start_time) == (120, datetime(2012, 5, 10, 3, 30, tzinfo=UTC))


@pytest.mark.parametrize("path", ["ZOOM0001.WAV", "993012_053000.wav", "notes.wav", "320112_053000.wav"])
def test_names_that_do_not_match_stay_as_they_are(path: str) -> None:
    before = recording(path, start_local=DAWN, start_time_source="bext")
    after, _ = apply_pattern([before, recording("100512_053000.wav")], "%d%m%y_%H%M%S")
    assert after is before


@pytest.mark.parametrize(
    "name", ["00011010_0530+1400.wav", "99991231_2359-1200.wav", "20240510_0530+9900.wav"]
)
def test_times_outside_the_calendar_and_offsets_of_no_zone_are_not_taken(name: str) -> None:
    before = recording(name)
    after, _ = apply_pattern([before, recording("20240510_0530Z.wav")], "%Y%m%d_%H%M%z")
    assert after is before


def test_pattern_that_matches_nothing_is_one_sentence() -> None:
    with pytest.raises(NaturelmError) as error:
        apply_pattern([recording("a/ZOOM0001.WAV"), recording("b.wav")], "%y%m%d_%H%M")
    assert "'%y%m%d_%H%M' (--name-pattern, recordings.name_pattern) matches none of 2 recordings" in str(
        error.value
    )
    assert "'a/ZOOM0001.WAV'" in str(error.value)


def test_names_that_may_say_a_time_are_listed_with_the_patterns_to_give() -> None:
    found = ambiguous_names(
        [
            recording("b/100512_053000.wav"),
            recording("a/110512_053000.wav"),
            recording("a/110512_053000_known.wav", start_local=DAWN),
            recording("POND_20240510_0530.wav"),
            recording("ZOOM0001.WAV"),
            recording("20240510_053000.wav"),
        ]
    )
    assert [(kind.count, kind.example) for kind in found] == [
        (2, "a/110512_053000.wav"),
        (1, "POND_20240510_0530.wav"),
    ]
    assert found[0].patterns == ("%y%m%d_%H%M%S", "%d%m%y_%H%M%S", "%m%d%y_%H%M%S")
    assert found[1].sentence == (
        "1 name like 'POND_20240510_0530.wav' may contain a time: give --name-pattern '{station}_%Y%m%d_%H%M'"
    )


@pytest.mark.parametrize(
    "name",
    [
        *("100512_053000.wav", "SITE_240510_053000.wav", "SITE_20240510_0530.wav", "240510_0530 (2).wav"),
        *("10-05-2024_05-30-00.wav", "1715319000.flac", "20240510_053000-2.wav", "10052024_053000_x.wav"),
        *("240510053000.wav", "x 2024-05-10_0530.wav", "2024-05-10_05-30_15.wav", "100%_240510_0530.wav"),
    ],
)
def test_every_pattern_that_is_suggested_reads_the_name_that_it_is_for(name: str) -> None:
    assert parse_name(name).start_local is None
    (kind,) = ambiguous_names([recording(name)])
    for pattern in kind.patterns:
        (after,) = apply_pattern([recording(name)], pattern)
        assert after.start_local is not None


def test_name_that_fits_nearly_is_refused_quickly() -> None:
    began = time.perf_counter()
    with pytest.raises(NaturelmError):
        apply_pattern([recording("a" * 250 + ".wav")], "{station}*a*a_%Y%m%d_%H%M%S")
    assert time.perf_counter() - began < 20
