"""Recordings that are renamed, replaced, described anew or gone between runs: least work, no stale or double rows."""

from __future__ import annotations

import datetime as dt
import shutil
import sys
from pathlib import Path

import pytest

from naturelm.results.published import PublishedFiles
from tests.archive.stub_runs import process, record, rows, settings, tables

NAMES = ["A/20240501_040000.wav", "A/20240501_050000.wav", "B/20240502_040000.wav"]


@pytest.fixture
def archive(tmp_path) -> Path:
    for seed, name in enumerate(NAMES):
        record(tmp_path / "archive" / name, seed)
    return tmp_path / "archive"


@pytest.fixture
def out(archive, tmp_path) -> Path:
    process(archive, tmp_path / "out")
    return tmp_path / "out"


def fresh(archive: Path, tmp_path: Path, **options) -> dict[str, bytes]:
    process(archive, tmp_path / "fresh", **options)
    return tables(tmp_path / "fresh")


def test_second_run_opens_and_does_nothing(archive, out, monkeypatch):
    def open_no_file(found):
        raise AssertionError(f"{found.relative_path} was opened again")

    # Not by its dotted name: the package has a function `probe` of its own.
    monkeypatch.setattr(sys.modules["naturelm.recordings.probe"], "probe", open_no_file)
    before = tables(out)
    assert process(archive, out).done == []
    assert tables(out) == before


def test_added_recording_is_the_only_one_done(archive, out, tmp_path):
    record(archive / "A/20240501_060000.wav", 9)
    assert {path for path, _ in process(archive, out).places} == {"A/20240501_060000.wav"}
    assert tables(out) == fresh(archive, tmp_path)


@pytest.mark.parametrize("name", ["A/20240501_070000.wav", "A/20240509_040000.wav", "C/20240501_040000.wav"])
def test_renamed_recording_keeps_its_answers_under_its_new_name_time_and_station(
    archive, out, tmp_path, name
):
    (archive / name).parent.mkdir(exist_ok=True)
    (archive / NAMES[0]).rename(archive / name)
    assert process(archive, out).done == []
    assert tables(out) == fresh(archive, tmp_path)


def test_recordings_that_swap_their_names_swap_their_rows(archive, out, tmp_path):
    (archive / NAMES[0]).rename(archive / "x")
    (archive / NAMES[1]).rename(archive / NAMES[0])
    (archive / "x").rename(archive / NAMES[1])
    assert process(archive, out).done == []
    assert tables(out) == fresh(archive, tmp_path)


def test_replaced_recording_is_done_again_and_its_old_rows_go(archive, out, tmp_path):
    record(archive / NAMES[0], 77, seconds=31.0)
    assert {path for path, _ in process(archive, out).places} == {NAMES[0]}
    assert tables(out) == fresh(archive, tmp_path)


def test_copy_is_a_recording_of_its_own(archive, out, tmp_path):
    record(archive / "A/20240501_080000.wav", 0)
    assert {path for path, _ in process(archive, out).places} == {"A/20240501_080000.wav"}
    assert tables(out) == fresh(archive, tmp_path)


def test_rows_of_a_vanished_recording_go_only_where_pruning_is_asked_for(archive, out, tmp_path):
    (archive / NAMES[0]).unlink()
    before = tables(out)
    assert [old.path for old in process(archive, out).changes.vanished] == [NAMES[0]]
    assert tables(out) == before
    assert process(archive, out, prune=True).done == []
    assert tables(out) == fresh(archive, tmp_path)


def test_vanished_recording_is_still_known_runs_later(archive, out, tmp_path):
    (archive / NAMES[0]).unlink()
    process(archive, out)
    record(archive / "A/20240501_090000.wav", 10)
    process(archive, out)
    process(archive, out, prune=True)
    assert tables(out) == fresh(archive, tmp_path)


def test_day_goes_with_its_last_recording(archive, out):
    (archive / NAMES[2]).unlink()
    process(archive, out, prune=True)
    assert not list(out.glob("*/B/2024-05-02.parquet"))


def test_pruning_leaves_recordings_of_other_archives_alone(archive, out, tmp_path):
    record(tmp_path / "other/C/20240501_040000.wav", 20)
    process(tmp_path / "other", out, prune=True)
    assert {row["path"] for row in rows(out, "recordings")} == {*NAMES, "C/20240501_040000.wav"}


def test_pruning_leaves_rows_alone_whose_card_is_not_mounted(archive, tmp_path):
    card, out = tmp_path / "card", tmp_path / "out"
    record(card / "C/20240501_040000.wav", 20)
    process([archive, card], out)
    shutil.rmtree(card / "C")
    assert process([archive, card], out, prune=True).changes.vanished == []
    assert "C/20240501_040000.wav" in {row["path"] for row in rows(out, "recordings")}


def test_recording_that_cannot_be_read_for_a_while_keeps_its_rows(archive, out):
    before = tables(out)
    whole = (archive / NAMES[0]).read_bytes()
    (archive / NAMES[0]).unlink()
    (archive / NAMES[0]).symlink_to("nowhere")
    ran = process(archive, out, prune=True)
    assert ran.done == []
    assert tables(out) == before
    (archive / NAMES[0]).unlink()
    (archive / NAMES[0]).write_bytes(whole)
    assert process(archive, out).done == []
    assert tables(out) == before


def test_segments_of_a_replaced_recording_do_not_stay_staged(archive, tmp_path):
    process(archive, tmp_path / "out", limit=5)
    record(archive / NAMES[0], 77)
    record(archive / NAMES[1], 78)
    process(archive, tmp_path / "out")
    assert tables(tmp_path / "out") == fresh(archive, tmp_path)
    assert not [path for path in (tmp_path / "out/_staging").rglob("*") if path.is_file()]


def test_stations_file_given_later_corrects_rows_without_new_answers(archive, out, tmp_path):
    stations = tmp_path / "stations.csv"
    stations.write_text("station,latitude,longitude,timezone\nA,52.1,4.4,Europe/Amsterdam\n")
    config = settings(stations_file=str(stations))
    assert process(archive, out, config).done == []
    assert tables(out) == fresh(archive, tmp_path, config=config)
    row = rows(out, "recordings")[0]
    assert (row["latitude"], row["utc_offset_minutes"], row["start_time_source"]) == (
        52.1,
        120,
        "name+timezone",
    )
    assert row["start_time"] == dt.datetime(2024, 5, 1, 2, tzinfo=dt.UTC)
    first = min(rows(out, "answers"), key=lambda answer: answer["start_local"])
    assert first["start_time"] == dt.datetime(2024, 5, 1, 2, tzinfo=dt.UTC)


def test_name_pattern_given_later_corrects_rows_without_new_answers(archive, out, tmp_path):
    config = settings(recordings={"name_pattern": "{station}/%Y%d%m_%H%M%S"})
    assert process(archive, out, config).done == []
    assert tables(out) == fresh(archive, tmp_path, config=config)
    row = next(row for row in rows(out, "recordings") if row["path"] == "A/20240501_040000.wav")
    assert (row["start_local"], row["start_time_source"]) == (dt.datetime(2024, 1, 5, 4), "pattern")
    # Taken away, it leaves what the file itself says.
    assert process(archive, out).done == []
    assert tables(out) == fresh(archive, tmp_path)


def test_stations_file_adds_to_what_a_name_pattern_says(archive, out, tmp_path):
    stations = tmp_path / "stations.csv"
    stations.write_text("station,timezone\nA,UTC+2\n")
    pattern = {"name_pattern": "{station}/%Y%d%m_%H%M%S"}
    process(archive, out, settings(recordings=pattern, stations_file=str(stations)))
    row = next(row for row in rows(out, "recordings") if row["path"] == "A/20240501_040000.wav")
    assert (row["start_time"], row["start_time_source"]) == (
        dt.datetime(2024, 1, 5, 2, tzinfo=dt.UTC),
        "pattern+timezone",
    )


def test_staged_rows_are_corrected_too(archive, tmp_path):
    process(archive, tmp_path / "out", limit=5)
    stations = tmp_path / "stations.csv"
    stations.write_text("station,timezone\nA,UTC+2\n")
    config = settings(stations_file=str(stations))
    process(archive, tmp_path / "out", config)
    assert tables(tmp_path / "out") == fresh(archive, tmp_path, config=config)


class _PowerCut(Exception):
    pass


@pytest.mark.parametrize("target", ["A/20240501_070000.wav", "A/20240509_040000.wav"])
def test_crash_at_any_write_of_a_change_is_mended_by_the_next_run(
    archive, out, tmp_path, monkeypatch, target
):
    (archive / NAMES[0]).rename(archive / target)
    (archive / NAMES[2]).unlink()
    writes = left = 0
    original = PublishedFiles.write

    def failing(*arguments, **options):
        nonlocal writes
        writes += 1
        if writes == left:
            raise _PowerCut
        return original(*arguments, **options)

    monkeypatch.setattr(PublishedFiles, "write", failing)
    for left in range(1, 30):
        writes = 0
        copy = tmp_path / f"copy{left}"
        shutil.copytree(out, copy)
        try:
            process(archive, copy, prune=True)
        except _PowerCut:
            writes = -1000
            assert process(archive, copy, prune=True).done == []
            assert tables(copy) == fresh(archive, tmp_path)
        else:
            break
    assert left > 8
