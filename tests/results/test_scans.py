"""Manifests: what a scan found, written once, and read by the next scan."""

from __future__ import annotations

import os
import time
from pathlib import Path

import duckdb
import pytest

from naturelm.config.archive import WindowSettings
from naturelm.recordings import Recording, scan
from naturelm.recordings.stations import read_stations
from naturelm.results.scans import Manifests, Scope, Seen
from naturelm.segments import cut_segments
from tests.archive.stub_runs import record

TENS = WindowSettings()


@pytest.fixture
def archive(tmp_path) -> Path:
    record(tmp_path / "archive/A/20240501_040000.wav", 1)
    record(tmp_path / "archive/A/20240501_050000.wav", 2, seconds=21)
    (tmp_path / "archive/A/empty.wav").touch()
    return tmp_path / "archive"


def write(archive: Path, out: Path, described: list[Recording] | None = None) -> str:
    own = scan([archive])
    return Manifests(out).write(own, described or own, Scope.of([archive], own), (), TENS, 2)


def test_same_scan_has_the_same_name_and_is_one_file(archive, tmp_path):
    assert write(archive, tmp_path / "one") == write(archive, tmp_path / "two")
    write(archive, tmp_path / "one")
    assert len(list((tmp_path / "one/_plans").iterdir())) == 1


def test_another_scan_is_another_file_and_the_first_stays(archive, tmp_path):
    first = write(archive, tmp_path)
    before = (tmp_path / f"_plans/{first}.parquet").read_bytes()
    record(archive / "A/20240501_060000.wav", 3)
    assert write(archive, tmp_path) != first
    assert (tmp_path / f"_plans/{first}.parquet").read_bytes() == before


def test_segments_are_those_that_recordings_are_cut_into(archive, tmp_path):
    name = write(archive, tmp_path)
    found = duckdb.sql(
        f"SELECT path, unnest(segments, recursive := true) FROM '{tmp_path}/_plans/{name}.parquet'"
    ).fetchall()
    assert found == [
        (r.path, s.first_window, s.window_count, s.start_s, s.end_s, s.own_end_s)
        for r in scan([archive])
        for s in cut_segments(r, TENS, 2)
    ]
    assert len(found) == 4 + 2 + 1


def test_known_recordings_are_those_of_the_scan_word_for_word(archive, tmp_path):
    write(archive, tmp_path)
    assert list(Manifests(tmp_path).known([archive]).values()) == scan([archive])


def test_what_a_stations_file_said_is_not_taken_for_the_files_own_word(archive, tmp_path):
    stations = tmp_path / "stations.csv"
    stations.write_text("station,latitude,longitude,timezone\nA,52.1,4.4,Europe/Amsterdam\n")
    own = scan([archive])
    described = [read_stations(stations).describe(recording) for recording in own]
    assert described[0].start_time is not None
    write(archive, tmp_path, described)
    assert list(Manifests(tmp_path).known([archive]).values()) == own


def test_newest_word_on_a_directory_counts_whatever_was_scanned_in_between(archive, tmp_path):
    record(tmp_path / "other/B/20240501_040000.wav", 5)
    write(archive, tmp_path)
    write(tmp_path / "other", tmp_path)
    assert len(Manifests(tmp_path).known([archive])) == 3
    assert len(Manifests(tmp_path).known([archive, tmp_path / "other"])) == 4
    assert Manifests(tmp_path).known([tmp_path]) == {}


def test_file_that_was_touched_or_changed_is_opened_again(archive, tmp_path):
    write(archive, tmp_path)
    path = archive / "A/20240501_050000.wav"
    record(path, 9, seconds=21)
    os.utime(path, ns=(time.time_ns(), time.time_ns() + 10**9))
    again = scan([archive], known=Manifests(tmp_path).known([archive]))
    assert again == scan([archive])
    assert again != list(Manifests(tmp_path).known([archive]).values())


def test_file_that_could_not_be_read_is_tried_again(archive, tmp_path):
    path = archive / "A/20240501_070000.wav"
    path.symlink_to("nowhere")
    write(archive, tmp_path)
    path.unlink()
    record(path, 4)
    found = scan([archive], known=Manifests(tmp_path).known([archive]))
    assert [r.status for r in found if r.path.endswith("070000.wav")] == ["ok"]


def test_last_seen_looks_through_all_manifests(archive, tmp_path):
    gone = scan([archive])[0]
    write(archive, tmp_path)
    (archive / gone.path).unlink()
    write(archive, tmp_path)
    seen = Manifests(tmp_path).last_seen([gone.recording_id, "no-such-id"])
    assert set(seen) == {gone.recording_id}
    assert (seen[gone.recording_id].path, seen[gone.recording_id].content) == (gone.path, gone.content)
    assert seen[gone.recording_id].is_gone()


def test_what_cannot_be_seen_is_not_gone(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "listed").mkdir()
    (tmp_path / "a.wav").write_bytes(b"")

    def gone(path: str) -> bool:
        return Seen(str(tmp_path), path, None).is_gone()

    assert [gone(path) for path in ("a.wav", "loop/a.wav", "b.wav", "a.wav/b.wav", "listed")] == [
        False,
        False,
        True,
        True,
        True,
    ]


def test_impossible_names_survive(tmp_path):
    archive = tmp_path / "archive"
    for name in (b'caf\xe9 \'n\n"quote".wav', "🦉.wav".encode()):
        record(archive / "x.wav", 1, seconds=1)
        os.rename(archive / "x.wav", os.fsencode(archive) + b"/" + name)
    write(archive, tmp_path)
    known = Manifests(tmp_path).known([archive])
    assert list(known.values()) == scan([archive])
    assert all(os.path.exists(recording.absolute_path) for recording in known.values())


def test_directory_without_manifests_knows_nothing(tmp_path):
    assert Manifests(tmp_path / "none").known([tmp_path]) == {}
    assert Manifests(tmp_path / "none").last_seen(["x"]) == {}
