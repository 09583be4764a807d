"""The real station recordings, where they are at hand."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from naturelm.audio.isolated import DecodeRequest, IsolatedDecoder
from naturelm.recordings import Recording, scan
from naturelm.windows import plan_windows
from tests.paths import SHARED

STATIONS = SHARED / "data/stations"
pytestmark = pytest.mark.skipif(not STATIONS.is_dir(), reason="needs the real station recordings")


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    return scan([STATIONS])


def test_every_recording_is_ok_and_decodes_in_full(recordings: list[Recording]) -> None:
    assert len(recordings) == 105
    with IsolatedDecoder() as decoder:
        for recording in recordings:
            assert recording.status == "ok"
            assert recording.duration_s is not None
            request = DecodeRequest(recording.absolute_path, ((0.0, recording.duration_s),))
            (span,) = decoder.decode(request)
            assert (span.status, span.decoded_s, span.end_of_file) == ("ok", recording.duration_s, True)


def test_they_make_238_windows_of_ten_seconds(recordings: list[Recording]) -> None:
    assert sum(len(plan_windows(recording.duration_s or 0, 10, 10)) for recording in recordings) == 238


def test_the_song_meter_day_covers_24_hours_at_its_station(recordings: list[Recording]) -> None:
    day = [recording for recording in recordings if recording.station == "S4A03895"]
    hours = {recording.start_local.hour for recording in day if recording.start_local}
    assert (len(day), hours) == (96, set(range(24)))
    assert {recording.start_time for recording in day} == {None}


def test_audiomoth_recordings_know_their_time_and_place(recordings: list[Recording]) -> None:
    moths = [recording for recording in recordings if recording.station == "audiomoth"]
    assert [recording.start_time for recording in moths] == [
        datetime(2025, 5, 3, 3, minute, tzinfo=UTC) for minute in (13, 14, 15)
    ]
    assert {
        (recording.start_time_source, recording.latitude, recording.longitude) for recording in moths
    } == {("guano", 52.146196, 4.474776)}


def test_audiomoth_comments_behind_the_sound_are_read(recordings: list[Recording]) -> None:
    by_path = {recording.path: recording for recording in recordings}
    old = by_path["misc/1min.wav"]
    assert (old.start_time, old.start_time_source) == (datetime(2018, 5, 4, 9, 32, tzinfo=UTC), "audiomoth")
    gps = by_path["misc/audiomoth_gps.wav"]
    assert (gps.start_time, gps.start_time_source) == (datetime(2024, 5, 28, 10, tzinfo=UTC), "audiomoth")
