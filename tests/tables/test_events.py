"""Events: which detections are merged, and what an event says of them."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from naturelm.cli import main
from naturelm.tables.events import events
from naturelm.tables.query import open_tables
from tests.tables.make_tables import detection, recording, write_results

EVENING = dt.datetime(2026, 5, 1, 20)


def merged(directory, recordings, detections, **options):
    """(path, start_s, end_s, windows) of the events."""
    connection = open_tables(write_results(directory, recordings, detections))
    rows = events(connection, **options).to_pylist()
    return [(row["path"], row["start_s"], row["end_s"], row["windows"]) for row in rows]


def test_neighbouring_windows_of_a_label_are_one_event(tmp_path):
    row = recording("a.wav", EVENING)
    found = [detection(row, start_s, "Robin") for start_s in (0, 10, 20, 40)]
    assert merged(tmp_path, [row], found) == [("a.wav", 0, 30, 3), ("a.wav", 40, 50, 1)]


def test_gap_is_the_longest_pause_within_an_event(tmp_path):
    row = recording("a.wav", EVENING)
    found = [detection(row, start_s, "Robin") for start_s in (0, 20, 41)]
    assert merged(tmp_path / "a", [row], found, gap_s=9.9) == [
        ("a.wav", 0, 10, 1),
        ("a.wav", 20, 30, 1),
        ("a.wav", 41, 51, 1),
    ]
    assert merged(tmp_path / "b", [row], found, gap_s=10) == [("a.wav", 0, 30, 2), ("a.wav", 41, 51, 1)]
    assert merged(tmp_path / "c", [row], found, gap_s=11) == [("a.wav", 0, 51, 3)]


def test_overlapping_windows_are_one_event(tmp_path):
    row = recording("a.wav", EVENING)
    found = [detection(row, start_s, "Robin") for start_s in (0, 2.5, 5, 7.5)]
    assert merged(tmp_path, [row], found) == [("a.wav", 0, 17.5, 4)]


def test_a_long_window_reaches_over_the_short_ones_within_it(tmp_path):
    row = recording("a.wav", EVENING)
    found = [detection(row, 0, "Robin", end_s=40.0), detection(row, 5, "Robin"), detection(row, 38, "Robin")]
    assert merged(tmp_path, [row], found) == [("a.wav", 0, 48, 3)]


def test_labels_queries_and_stations_are_apart(tmp_path):
    here, there = recording("a.wav", EVENING), recording("b.wav", EVENING, station="B")
    found = [
        detection(here, 0, "Robin"),
        detection(here, 10, "Wren"),
        detection(here, 10, "Robin", query="latin"),
        detection(there, 10, "Robin"),
    ]
    assert [windows for *_, windows in merged(tmp_path, [here, there], found)] == [1, 1, 1, 1]


def test_spellings_of_a_label_are_one_event_under_the_most_frequent(tmp_path):
    row = recording("a.wav", EVENING)
    found = [detection(row, 0, "ROBIN"), detection(row, 10, " robin."), detection(row, 20, "Robin")]
    found.append(detection(row, 50, "Robin"))
    first, _ = events(open_tables(write_results(tmp_path, [row], found))).to_pylist()
    assert (first["label"], first["label_key"], first["windows"]) == ("Robin", "robin", 3)


def test_an_event_runs_into_the_next_recording(tmp_path):
    first = recording("a/1.wav", EVENING)
    second = recording("a/2.wav", EVENING + dt.timedelta(seconds=60))
    found = [detection(first, 50, "Robin", 0.4), detection(second, 0, "Robin", 0.8)]
    connection = open_tables(write_results(tmp_path, [first, second], found))
    [event] = events(connection).to_pylist()
    assert (event["path"], event["start_s"], event["end_s"]) == ("a/1.wav", 50, 70)
    assert (event["duration_s"], event["windows"]) == (20, 2)
    assert (event["mean_score"], event["best_score"]) == (pytest.approx(0.6), 0.8)
    assert event["start_local"] == EVENING + dt.timedelta(seconds=50)
    assert event["date"] == EVENING.date()
    within = connection.sql("SELECT windows FROM events_of(across := false)").fetchall()
    assert within == [(1,), (1,)]


def test_an_event_runs_past_midnight(tmp_path):
    first = recording("1.wav", dt.datetime(2026, 5, 1, 23, 59))
    second = recording("2.wav", dt.datetime(2026, 5, 2))
    found = [detection(first, 50, "Robin"), detection(second, 0, "Robin")]
    assert merged(tmp_path, [first, second], found) == [("1.wav", 50, 70, 2)]


def test_a_pause_between_recordings_ends_an_event(tmp_path):
    first = recording("a/1.wav", EVENING)
    second = recording("a/2.wav", EVENING + dt.timedelta(seconds=65))
    found = [detection(first, 50, "Robin"), detection(second, 0, "Robin")]
    assert len(merged(tmp_path / "a", [first, second], found)) == 2
    assert len(merged(tmp_path / "b", [first, second], found, gap_s=5)) == 1


def test_recordings_of_unknown_time_are_apart(tmp_path):
    first, second = recording("a/1.wav"), recording("a/2.wav")
    found = [detection(row, start_s, "Robin") for row in (first, second) for start_s in (0, 10, 50)]
    expected = [(path, *span) for path in ("a/1.wav", "a/2.wav") for span in ((0, 20, 2), (50, 60, 1))]
    assert sorted(merged(tmp_path, [first, second], found)) == expected


def test_low_scores_are_left_out_before_merging(tmp_path):
    row = recording("a.wav", EVENING)
    found = [
        detection(row, 0, "Robin", 0.9),
        detection(row, 10, "Robin", 0.2),
        detection(row, 20, "Robin", 0.9),
    ]
    found.append(detection(row, 40, "Robin", None))
    assert merged(tmp_path, [row], found, min_score=0.5) == [("a.wav", 0, 10, 1), ("a.wav", 20, 30, 1)]


def test_labels_that_say_nothing_are_no_event(tmp_path):
    row = recording("a.wav", EVENING)
    found = [detection(row, 0, label) for label in ("None", "none.", "No animals", "")]
    assert merged(tmp_path, [row], found) == []


def test_the_view_is_the_function_with_its_defaults(tmp_path):
    row = recording("a.wav", EVENING)
    connection = open_tables(
        write_results(tmp_path, [row], [detection(row, 0, "Robin"), detection(row, 11, "Robin")])
    )
    assert connection.sql("FROM events").fetchall() == connection.sql("FROM events_of()").fetchall()
    assert connection.sql("SELECT windows FROM events").fetchall() == [(2,)]


spans = st.lists(
    st.tuples(st.integers(0, 300), st.integers(1, 40), st.integers(0, 3), st.integers(0, 100)), max_size=40
)


@settings(max_examples=settings.default.max_examples // 2)
@given(found=spans, gap=st.integers(0, 20), min_score=st.sampled_from([0.0, 0.5]))
def test_events_are_what_a_plain_sweep_finds(tmp_path_factory, found, gap, min_score):
    """Half-second starts and lengths, four labels, in SQL and in a loop."""
    row = recording("a.wav", EVENING)
    detections = [
        detection(row, start / 2, f"L{label}", score / 100, end_s=(start + length) / 2)
        for start, length, label, score in found
    ]
    directory = tmp_path_factory.mktemp("night")
    expected = []
    for label in range(4):
        reach, windows = None, 0
        kept = sorted(span for span in found if span[2] == label and span[3] / 100 >= min_score)
        for start, length, _, _ in kept:
            if reach is None or start / 2 > reach + gap / 2:
                expected.append([f"L{label}", start / 2, 0.0, 0])
                reach, windows = 0.0, 0
            reach, windows = max(reach, (start + length) / 2), windows + 1
            expected[-1][2:] = [reach, windows]
    table = events(
        open_tables(write_results(directory, [row], detections)), gap_s=gap / 2, min_score=min_score
    )
    rows = [[row["label"], row["start_s"], row["end_s"], row["windows"]] for row in table.to_pylist()]
    assert sorted(rows) == sorted(expected)


def test_command_prints_events_in_every_form(tmp_path):
    row = recording("a.wav", EVENING)
    night = str(
        write_results(tmp_path / "night", [row], [detection(row, 0, "Robin"), detection(row, 20, "Robin")])
    )

    def run(*options):
        result = CliRunner().invoke(main, ["events", night, *options])
        assert result.exit_code == 0, result.output
        return result.output

    assert run().splitlines()[-1] == "(2 rows)"
    assert run("--gap", "10").splitlines()[-1] == "(1 row)"
    assert json.loads(run("--min-score", "0.95", "--format", "json")) == []
    [event] = csv.DictReader(io.StringIO(run("--gap", "10", "--format", "csv")))
    assert (event["label"], event["end_s"], event["windows"]) == ("Robin", "30.0", "2")


@pytest.mark.parametrize("options", [["--gap", "-1"], ["--min-score", "2"], ["--format", "xml"]])
def test_command_refuses_what_makes_no_sense(tmp_path, options):
    result = CliRunner().invoke(main, ["events", str(write_results(tmp_path)), *options])
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_recordings_that_overlap_at_a_station_share_no_event(tmp_path):
    rows = [
        recording("a/1.wav", EVENING),
        recording("b/1.wav", EVENING + dt.timedelta(seconds=5)),
        recording("b/2.wav", EVENING + dt.timedelta(seconds=65)),
    ]
    found = [detection(row, start_s, "Robin") for row in rows for start_s in (0, 10, 50)]
    assert merged(tmp_path, rows, found) == [
        ("a/1.wav", 0, 20, 2),
        ("b/1.wav", 0, 20, 2),
        ("a/1.wav", 50, 60, 1),
        ("b/1.wav", 50, 60, 1),
        ("b/2.wav", 0, 20, 2),
        ("b/2.wav", 50, 60, 1),
    ]
