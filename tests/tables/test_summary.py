"""Summaries: counts by label and hour, date or station, beside the hours that were analysed."""

from __future__ import annotations

import datetime as dt
import json

import pytest
from click.testing import CliRunner

from naturelm.cli import main
from naturelm.tables.query import open_tables
from naturelm.tables.summary import lines, summarise
from tests.tables.make_tables import detection, recording, write_results

EVENING = dt.datetime(2026, 5, 1, 20, 30)


@pytest.fixture
def night(tmp_path):
    """An hour from 20:30, a silent quarter at 23:00, an undated minute, and files that failed."""
    evening = recording("a/1.wav", EVENING, duration_s=3600.0, windows=360)
    silent = recording("b/2.wav", dt.datetime(2026, 5, 1, 23), station="B", duration_s=900.0, windows=90)
    undated = recording("c/3.wav", station="C")
    broken = recording(
        "a/4.wav", EVENING, status="corrupt", error="no header", duration_s=None, decoded_s=0.0, windows=0
    )
    cut = recording(
        "a/5.wav", EVENING.replace(hour=4), status="partial", error="ends early", decoded_s=1800.0
    )
    found = [
        detection(evening, 0, "Robin", 0.9),
        detection(evening, 1790, "robin", 0.3),
        detection(evening, 1800, "Robin", 0.6),
        detection(evening, 1800, "None"),
        detection(undated, 0, "Wren", 0.8),
    ]
    return write_results(tmp_path / "night", [evening, silent, undated, broken, cut], found)


def run(night, *options):
    result = CliRunner().invoke(main, ["summary", str(night), *options], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


def counts(summary):
    return {label.label: label.counts for label in summary.labels}


def test_effort_is_shared_out_among_the_hours_a_recording_touches(night):
    effort = summarise(open_tables(night)).effort_hours
    assert effort == pytest.approx({"04": 0.5, "20": 0.5, "21": 0.5, "23": 0.25, "unknown": 60 / 3600})


def test_a_silent_hour_differs_from_an_unrecorded_one(night):
    summary = summarise(open_tables(night))
    assert counts(summary) == {"Robin": {"20": 2, "21": 1}, "Wren": {"unknown": 1}}
    [header] = [line.split() for line in run(night).splitlines() if line.startswith("hour (")]
    [robin] = [line.split() for line in run(night).splitlines() if line.startswith("Robin")]
    shown = dict(zip(header[3:], robin[1:], strict=True))
    assert shown["20"] == "2"
    assert shown["23"] == "0"
    assert shown["22"] == "-"
    assert shown["all"] == "3"


def test_statuses_add_up_and_failures_are_listed(night):
    summary = summarise(open_tables(night))
    assert {status: count for status, (count, _) in summary.statuses.items()} == {
        "ok": 3,
        "corrupt": 1,
        "partial": 1,
    }
    assert next(iter(summary.statuses)) == "ok"
    assert [failure["path"] for failure in summary.failures] == ["a/4.wav", "a/5.wav"]
    output = run(night)
    assert "a/4.wav  corrupt  no header" in output
    assert "a/5.wav  partial  ends early" in output


def test_hours_of_a_day_long_recording_add_up_to_it(tmp_path):
    start = dt.datetime(2026, 5, 1, 13, 12, 30, 500_000)
    row = recording("a.wav", start, duration_s=86_400.0 + 1800.25, windows=8821)
    connection = open_tables(write_results(tmp_path, [row]))
    by_hour = summarise(connection).effort_hours
    assert sum(by_hour.values()) == pytest.approx(24 + 1800.25 / 3600)
    assert len(by_hour) == 24
    assert by_hour["13"] == pytest.approx(1 + 1800.25 / 3600)
    assert list(summarise(connection, by="date").effort_hours) == ["2026-05-01", "2026-05-02"]


def test_by_date_and_station(night):
    by_date = summarise(open_tables(night), by="date")
    assert counts(by_date) == {"Robin": {"2026-05-01": 3}, "Wren": {"unknown": 1}}
    by_station = summarise(open_tables(night), by="station")
    assert by_station.effort_hours == pytest.approx({"A": 1.5, "B": 0.25, "C": 60 / 3600})
    assert counts(by_station) == {"Robin": {"A": 3}, "Wren": {"C": 1}}


def test_by_label_tells_scores_and_times(night):
    robin, wren = summarise(open_tables(night), by="label").labels
    assert (robin.label, robin.detections, robin.details["recordings"]) == ("Robin", 3, 1)
    assert robin.details["first"] == "2026-05-01 20:30:00"
    assert robin.details["last"] == "2026-05-01 21:00:00"
    assert robin.details["best_score"] == 0.9
    assert robin.details["mean_score"] == pytest.approx(0.6)
    assert wren.details["first"] is None
    assert "Robin" in run(night, "--by", "label")


def test_min_score_leaves_detections_out_and_keeps_the_effort(night):
    summary = summarise(open_tables(night), min_score=0.5)
    assert counts(summary)["Robin"] == {"20": 1, "21": 1}
    assert summary.effort_hours["20"] == 0.5


def test_utc_hours_are_those_of_the_known_offsets(tmp_path):
    known = recording(
        "a.wav", EVENING, start_time=dt.datetime(2026, 5, 1, 18, 30, tzinfo=dt.UTC), utc_offset_minutes=120
    )
    unknown = recording("b.wav", EVENING, start_time=None)
    connection = open_tables(
        write_results(
            tmp_path, [known, unknown], [detection(known, 0, "Robin"), detection(unknown, 0, "Robin")]
        )
    )
    assert counts(summarise(connection))["Robin"] == {"20": 2}
    assert counts(summarise(connection, clock="utc"))["Robin"] == {"18": 1, "unknown": 1}
    assert set(summarise(connection, clock="utc").effort_hours) == {"18", "unknown"}


def test_an_empty_night_has_a_summary(tmp_path):
    for by in ("hour", "date", "station", "label"):
        output = run(write_results(tmp_path / by), "--by", by)
        assert "all" in output
        assert json.loads(run(tmp_path / by, "--by", by, "--format", "json"))["labels"] == []


@pytest.mark.parametrize("by", ["hour", "date", "station", "label"])
def test_json_has_what_the_table_shows(night, by):
    summary = json.loads(run(night, "--by", by, "--format", "json"))
    assert summary["by"] == by
    assert summary["statuses"]["ok"]["recordings"] == 3
    assert [label["label"] for label in summary["labels"]] == ["Robin", "Wren"]
    assert summary["labels"][0]["detections"] == 3


@pytest.mark.parametrize("width", [60, 80, 200])
def test_lines_fit_the_width(night, width):
    for line in lines(summarise(open_tables(night)), width):
        assert len(line) <= max(width, 80)


def test_hostile_names_cannot_steer_the_terminal(tmp_path):
    row = recording(
        "a\x1b[2J.wav", EVENING, station="\x1b]0;x\x07", status="partial", error="\x1b[31mred\nline"
    )
    night = write_results(tmp_path / "night", [row], [detection(row, 0, "\x1b[31m" + "x" * 10_000)])
    for by in ("hour", "station", "label"):
        output = run(night, "--by", by)
        assert all(character.isprintable() for line in output.split("\n") for character in line)
        assert max(map(len, output.splitlines())) < 200


def test_wrong_options_are_told(night):
    for options in (["--by", "moon"], ["--min-score", "7"]):
        result = CliRunner().invoke(main, ["summary", str(night), *options])
        assert result.exit_code == 2
        assert "Traceback" not in result.output
