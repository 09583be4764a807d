"""A recording is the same one however its path is typed, and what this program wrote is no recording."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

import naturelm
from naturelm.archive import job
from naturelm.cli import main
from tests.archive.stub_model import StubAsk


@pytest.fixture(autouse=True)
def stub(monkeypatch):
    monkeypatch.setitem(job.process_archive.__kwdefaults__, "make_ask", StubAsk)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    rng = np.random.default_rng(5)
    for name in ("siteA/20260514_210000.wav", "siteA/card/20260514_220000.wav", "siteB/20260514_210000.wav"):
        path = tmp_path / "wf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, rng.normal(size=40_000) * 0.1, 2_000)
    return tmp_path / "wf"


def process(out: Path, *paths: Path | str) -> str:
    done = CliRunner().invoke(main, ["process", *map(str, paths), "--out", str(out), "--workers", "0"])
    assert done.exit_code == 0, done.output
    return done.output


def rows(out: Path) -> list[tuple]:
    """Each recording with its station and number of windows."""
    sql = """
        SELECT recordings.path, recordings.station, count(DISTINCT answers.window)
        FROM recordings JOIN answers USING (recording_id) GROUP BY ALL ORDER BY ALL
    """
    return naturelm.open_tables(out).sql(sql).fetchall()


WHOLE = [
    ("siteA/20260514_210000.wav", "siteA", 2),
    ("siteA/card/20260514_220000.wav", "siteA", 2),
    ("siteB/20260514_210000.wav", "siteB", 2),
]


@pytest.mark.parametrize(
    "order",
    [
        [["."], ["siteA"]],
        [["siteA"], ["."]],
        [["siteA", "siteB"], ["."]],
        [["siteA/card"], ["siteA"], ["."]],
        [["siteA/card/20260514_220000.wav"], ["."], ["siteA/card/20260514_220000.wav"]],
        [["siteB", "."], ["siteB"]],
        [["."], ["siteB/../siteA"], ["siteA", "."]],
    ],
    ids=str,
)
def test_recording_has_its_rows_once_in_whatever_order_paths_are_given(archive, tmp_path, order):
    out = tmp_path / "out"
    for paths in order:
        process(out, *(archive / path for path in paths))
    assert rows(out) == WHOLE
    again = process(out, archive)
    assert "nothing to do" in again


def test_relative_paths_and_links_lead_to_the_same_recordings(archive, tmp_path, monkeypatch):
    out = tmp_path / "out"
    process(out, archive)
    (tmp_path / "link").symlink_to(archive)
    monkeypatch.chdir(archive / "siteA")
    for path in (
        ".",
        "..",
        "../siteB",
        tmp_path / "link",
        tmp_path / "link/siteA",
        tmp_path / "link/siteA/card",
    ):
        assert "nothing to do" in process(out, path), path
    assert rows(out) == WHOLE


def test_archive_on_another_mount_keeps_its_rows(archive, tmp_path):
    out = tmp_path / "out"
    process(out, archive)
    moved = tmp_path / "mnt" / "disk2"
    moved.parent.mkdir()
    archive.rename(moved)
    assert "nothing to do" in process(out, moved)
    assert "nothing to do" in process(out, moved / "siteB")
    assert rows(out) == WHOLE


def test_part_of_the_archive_does_not_prune_the_rest(archive, tmp_path):
    out = tmp_path / "out"
    process(out, archive)
    (archive / "siteA/20260514_210000.wav").unlink()
    (archive / "siteB/20260514_210000.wav").unlink()
    done = CliRunner().invoke(
        main, ["process", str(archive / "siteA"), "--out", str(out), "--workers", "0", "--prune"]
    )
    assert "1 recording no longer there: the rows are dropped" in done.output
    assert rows(out) == WHOLE[1:]


def test_card_that_was_copied_twice_is_reported_by_process_and_plan(archive, tmp_path):
    shutil.copytree(archive / "siteA", archive / "copy of siteA")
    line = "2 recordings with the same content as another one, such as siteA/20260514_210000.wav and copy of siteA/"
    assert line in process(tmp_path / "out", archive)
    planned = CliRunner().invoke(main, ["plan", str(archive), "--out", str(tmp_path / "plan"), "--no-trial"])
    assert line in planned.output


def test_results_and_clips_below_the_archive_are_no_recordings(archive, tmp_path, monkeypatch):
    monkeypatch.chdir(archive)
    process(Path("results"), ".")
    cut = CliRunner().invoke(main, ["clips", "results", "--out", "best clips"])
    assert cut.exit_code == 0, cut.output
    assert list(Path("best clips").rglob("*.flac"))
    again = process(Path("results"), ".")
    assert (
        "left out: 2 directories of results or clips of this program (best clips (1), results (1))" in again
    )
    assert "nothing to do" in again
    assert len(rows(Path("results"))) == 3


def test_directory_that_only_has_a_file_of_such_a_name_is_searched(archive, tmp_path):
    (archive / "siteA/analysis.yaml").write_text("my notes: yes\n")
    (archive / "siteB/clips.csv").write_text("name,quality\n20260514_210000.wav,good\n")
    process(tmp_path / "out", archive)
    assert rows(tmp_path / "out") == WHOLE
