"""What `naturelm plan` prints, and the options that it shares with `naturelm process`."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from naturelm.cli import main
from tests.archive.stub_runs import process, record, settings, tables


@pytest.fixture
def archive(tmp_path) -> Path:
    for number in range(6):
        record(tmp_path / f"archive/A/20240501_04{10 * number:02}00.wav", number, seconds=600)
    (tmp_path / "archive/A/20240501_042000.wav").unlink()
    record(tmp_path / "archive/B/notes.wav", 7, seconds=20)
    (tmp_path / "archive/B/20240501_040000.wav").write_bytes(b"")
    return tmp_path / "archive"


def call(*arguments: object):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def output_lines(archive: Path, out: Path, *options: object) -> list[str]:
    result = call("plan", archive, "--out", out, "--no-trial", *options)
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


def refused(result) -> str:
    assert result.exit_code == 2, result.output
    (message,) = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    return message


def test_plan_tells_what_is_there_and_what_is_to_be_done(archive, tmp_path):
    lines = output_lines(archive, tmp_path / "out")
    assert "7 recordings (1 corrupt, 6 ok), 50.3 min of sound" in lines
    assert "2 station-days" in lines
    assert "1 recording without a known start time" in lines
    assert "1 broken or empty recording:" in lines
    assert "  B/20240501_040000.wav: corrupt (the file is empty)" in lines
    assert "1 pause longer than usual:" in lines
    assert "  A: 10.0 min before 2024-05-01 04:30:00 (after A/20240501_041000.wav)" in lines
    assert any(line.startswith("to do: 302 windows in 7 segments, 50.3 min of sound") for line in lines)
    assert any(line.startswith("disk: about ") for line in lines)
    (manifest,) = (tmp_path / "out/_plans").iterdir()
    assert f"manifest: {tmp_path}/out/_plans/{manifest.name}" in lines


def test_planning_begins_no_analysis(archive, tmp_path):
    output_lines(archive, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["_plans"]
    output_lines(archive, tmp_path / "out", "--hop", "5")


def test_plan_takes_off_what_is_chosen_away(archive, tmp_path):
    lines = output_lines(archive, tmp_path / "out", "--hours", "04:30-05:00", "--stations", "A")
    assert any(line.startswith("to do: 180 windows in 3 segments") for line in lines)
    assert "4 segments not selected" in lines


def test_plan_changes_no_table_and_tells_what_a_run_will_change(archive, tmp_path):
    out = tmp_path / "out"
    # What the command's own settings are, so that it is the same analysis.
    config = settings(job={"segment_minutes": 10.0})
    process(archive, out, config)
    text = (out / "analysis.yaml").read_text()
    from naturelm.models.presets import known_weights

    real = config.analysis_hash(known_weights("pocket").revision or "")
    (out / "analysis.yaml").write_text(
        text.replace("revision: r\n", f"revision: {known_weights('pocket').revision}\n").replace(
            config.analysis_hash("r"), real
        )
    )
    before = tables(out)
    (archive / "A/20240501_040000.wav").rename(archive / "A/20240502_040000.wav")
    (archive / "A/20240501_041000.wav").unlink()
    record(archive / "B/notes.wav", 8, seconds=30)
    lines = output_lines(archive, out)
    assert "1 recording renamed: the rows are kept under the new names" in lines
    assert "1 recording replaced by other files: the rows are dropped" in lines
    assert "1 recording no longer there: the rows are kept; --prune drops them" in lines
    assert any(line.startswith("to do: 3 windows in 1 segment") for line in lines)
    assert tables(out) == before


def test_plan_tells_where_stations_file_and_archive_disagree(archive, tmp_path):
    stations = tmp_path / "stations.csv"
    stations.write_text("station,timezone,start,end\nA,Europe/Berlin,2024-05-02,2024-05-09\nC,,,\n")
    lines = output_lines(archive, tmp_path / "out", "--stations-file", stations)
    at = lines.index("1 station without a row in the stations file:")
    assert lines[at + 1] == "  B"
    assert any(
        line.startswith("stations file: 1 station without recordings here, such as 'C'") for line in lines
    )
    assert "5 recordings outside the deployments of their station:" in lines


def test_name_pattern_says_what_names_do_not_by_themselves(tmp_path):
    for name in ("pond_100512_053000.wav", "pond_110512_053000.wav"):
        record(tmp_path / "archive" / name, 1, seconds=20)
    lines = output_lines(tmp_path / "archive", tmp_path / "out")
    assert "2 recordings without a known start time" in lines
    assert (
        "2 names like 'pond_100512_053000.wav' may contain a time: give --name-pattern '{station}_%y%m%d_%H%M%S' or "
        "'{station}_%d%m%y_%H%M%S' or '{station}_%m%d%y_%H%M%S'" in lines
    )
    lines = output_lines(tmp_path / "archive", tmp_path / "out", "--name-pattern", "{station}_%d%m%y_%H%M%S")
    assert "2 station-days" in lines
    assert not any("start time" in line or "may contain a time" in line for line in lines)


def test_doubtful_clocks_remarks_and_what_is_left_out_are_listed(tmp_path):
    record(tmp_path / "archive/20000101_000000.wav", 1, seconds=20)
    record(tmp_path / "archive/#recycle/20240501_000000.wav", 2, seconds=20)
    lines = output_lines(tmp_path / "archive", tmp_path / "out")
    assert "1 recording with a doubtful clock:" in lines
    assert "  20000101_000000.wav: the clock shows 2000, where a clock begins that was never set" in lines
    assert any(line.startswith("left out: 1 ") and "#recycle (1)" in line for line in lines)


def test_trial_gives_a_time(tmp_path):
    record(tmp_path / "archive/A/20240501_040000.wav", 1, seconds=20)
    result = call("plan", tmp_path / "archive", "--out", tmp_path / "out", "--window", "10")
    assert result.exit_code == 0, result.output
    assert " windows/s (a trial of " in result.output
    assert "if started now" in result.output


@pytest.mark.parametrize("verb", ["plan", "process"])
@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--dates", "May", "'May' is not a valid date"),
        ("--dates", "2024-05-02..2024-05-01", "ends before it begins"),
        ("--hours", "dawn", "'dawn' is not a valid span of hours"),
        ("--sample", "0", "--sample is 0"),
        ("--sample", "1.5", "--sample is 1.5"),
        ("--stations-file", "none.csv", "none.csv: cannot read the stations"),
        ("--name-pattern", "%m%d_%H%M", "name pattern '%m%d_%H%M': it lacks the year (%Y or %y)"),
        (
            "--name-pattern",
            "x%Y%m%d_%H",
            "(--name-pattern, recordings.name_pattern) matches none of 7 recordings",
        ),
    ],
)
def test_mistake_is_one_sentence_and_exit_code_2(archive, tmp_path, verb, option, value, expected):
    assert expected in refused(call(verb, archive, "--out", tmp_path / "out", option, value))
    assert not (tmp_path / "out").exists()


def test_unknown_order_is_told_with_the_known_ones(archive, tmp_path):
    result = call("plan", archive, "--out", tmp_path / "out", "--order", "random")
    assert result.exit_code == 2
    assert "'longest-first', 'oldest', 'newest', 'dawn-first', 'spread'" in result.output


def test_stations_file_in_settings_lies_beside_them(archive, tmp_path):
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings/places.csv").write_text("station,timezone\nA,UTC+2\nB,UTC+2\n")
    config = tmp_path / "settings/archive.yaml"
    config.write_text("stations_file: places.csv\nselection:\n  dates: 2024-05-01\n")
    lines = output_lines(archive, tmp_path / "out", "--config", config)
    assert not any("local time only" in line for line in lines)
    assert "1 segment not selected" in lines
