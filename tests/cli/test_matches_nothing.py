"""What matches nothing is an error that names the nearest spelling, and what is left out is counted."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from naturelm.cli import main
from naturelm.text import suggestion


@pytest.fixture
def archive(tmp_path):
    for station in (unicodedata.normalize("NFD", "Höhle"), "ridge"):
        for name in ("20260514_213000.WAV", "notes.wav"):
            path = tmp_path / "archive" / station / name
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, np.zeros(16_000 * 12, np.int16), 16_000)
    return tmp_path / "archive"


@pytest.fixture
def plan(archive, tmp_path):
    def run(*options: str):
        arguments = ["plan", str(archive), "--out", str(tmp_path / "out"), "--no-trial", *options]
        return CliRunner().invoke(main, arguments)

    return run


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--stations", "Hohle"], "no recording is from station 'Hohle'; did you mean 'Höhle'?"),
        (["--stations", "ridge,RIDGE"], "'RIDGE'; did you mean 'ridge'?"),
        (["--stations", "x"], "there are 'Höhle', 'ridge'"),
        (
            ["--dates", "2031-01-01"],
            "--dates: nothing is within 2031-01-01; recordings start between 2026-05-14",
        ),
        (["--hours", "03:00-04:00"], "--hours: nothing is within 03:00-04:00"),
        (["--hours", "03:00-04:00"], "2 have no known start time (--include-undated)"),
    ],
)
def test_selection_that_matches_nothing_is_refused(plan, options, named):
    done = plan(*options)
    assert done.exit_code == 2
    assert named in done.output


def test_process_refuses_it_too_and_writes_nothing(archive, tmp_path):
    out = tmp_path / "out"
    done = CliRunner().invoke(
        main, ["process", str(archive), "--out", str(out), "--workers", "0", "--stations", "Hohle"]
    )
    assert done.exit_code == 2
    assert "did you mean 'Höhle'?" in done.output
    assert not out.exists()


def test_station_matches_in_either_unicode_form(plan):
    for form in ("NFC", "NFD"):
        done = plan("--stations", unicodedata.normalize(form, "Höhle"))
        assert done.exit_code == 0
        assert "to do: 4 windows in 2 segments" in done.output


def test_recordings_without_a_time_are_counted_and_can_be_included(plan):
    left_out = plan("--hours", "21:00-22:00")
    assert "left out by --dates or --hours: 2 recordings without a known start time" in left_out.output
    assert "to do: 4 windows" in left_out.output
    included = plan("--hours", "21:00-22:00", "--include-undated")
    assert "left out by" not in included.output
    assert "to do: 8 windows" in included.output


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_stations_files_saved_by_spreadsheets_are_read(plan, tmp_path, delimiter, encoding):
    comma = "." if delimiter == "," else ","
    rows = [
        ["Station", "Latitude", "LONGITUDE", "Time zone", "habitat"],
        ["Höhle", f"52{comma}15", f"4{comma}47", "", "cave"],
        ["", "", "", "", ""],
        ["Rigde", "", "", "", ""],
    ]
    path = tmp_path / "stations.csv"
    path.write_text("\r\n".join(delimiter.join(row) for row in rows), encoding=encoding)
    done = plan("--stations-file", str(path))
    # One letter away from a known column: more likely a mistake than a note.
    assert done.exit_code == 2
    assert "unknown column 'time_zone'; did you mean timezone?" in done.output
    path.write_text(path.read_text(encoding=encoding).replace("Time zone", "TimeZone"), encoding=encoding)
    done = plan("--stations-file", str(path))
    assert done.exit_code == 0, done.output
    assert "ignored columns: habitat" in done.output
    assert "1 station without recordings here, such as 'Rigde'; did you mean 'ridge'?" in done.output


def test_stations_file_of_another_archive_is_refused(plan, tmp_path):
    path = tmp_path / "stations.csv"
    path.write_text("station\nHohle\n")
    done = plan("--stations-file", str(path))
    assert done.exit_code == 2
    assert "no recording is from any of its stations, such as 'Hohle'; did you mean 'Höhle'?" in done.output


def test_closed_lists_are_shown_as_they_were_understood(plan, tmp_path):
    (tmp_path / "owls.csv").write_text(
        "Common Name;Scientific Name\nTawny Owl;Strix aluco\nLittle Owl;Athene noctua\n"
    )
    config = tmp_path / "night.yaml"
    config.write_text(
        "queries: [{id: owls, prompt: 'Which owl?', kind: classification, labels_file: owls.csv}]\n"
    )
    done = plan("--config", str(config))
    assert "query owls: 2 labels, first: Tawny Owl, Little Owl" in done.output


def test_suggestion_names_what_there_is_where_nothing_is_near():
    assert suggestion("owl", ["Owl", "Wolf"]) == "did you mean 'Owl'?"
    assert suggestion("zzz", []) == "there are none"
    assert suggestion("zzz", "abcdefg") == "there are 'a', 'b', 'c', 'd', 'e' and 2 more"
    assert suggestion("zzz", ["\x1b[31m"]) == "there are '\\\\x1b[31m'"
