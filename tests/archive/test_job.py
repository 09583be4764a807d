"""The whole job on real files with the bundled model: every row once, whatever happens in between."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from naturelm.archive import job, pace
from naturelm.archive.backends import local
from naturelm.archive.job import process_archive
from naturelm.archive.progress import Progress
from naturelm.config.archive import ArchiveConfig
from naturelm.config.loading import load_archive_config
from naturelm.errors import NaturelmError
from naturelm.results.rows import AnsweredSegment
from naturelm.segments import Read
from naturelm.synthetic.nights import NIGHT, make_night
from naturelm.tables.query import open_tables
from tests.archive.runs import SETTINGS, published, run, staged, table

FOCAL = "What is the common name for the focal species in the audio? Answer:"
WINDOWS = sum(-(-round(duration_s) // 10) for _, _, duration_s, _ in NIGHT)


@pytest.fixture(scope="session")
def night(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("night")
    make_night(directory, seed=3)
    return directory


@pytest.fixture(scope="session")
def undisturbed(night, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    run([night], out)
    return out


def test_night_has_a_row_for_every_recording_and_an_answer_for_every_window_and_query(night, tmp_path):
    counts = run([night], tmp_path)
    assert counts.recordings == {"ok": len(NIGHT), "done before": 0}
    assert (counts.windows, counts.answers) == (WINDOWS, 2 * WINDOWS)
    recordings = table(tmp_path, "recordings")
    assert sorted(recordings["path"].to_pylist()) == sorted(path for path, *_ in NIGHT)
    assert recordings["duration_s"].to_pylist() == pytest.approx(recordings["decoded_s"].to_pylist())
    answers = table(tmp_path, "answers")
    keys = list(zip(*(answers[c].to_pylist() for c in ("recording_id", "window", "query")), strict=True))
    assert len(set(keys)) == len(keys) == 2 * WINDOWS
    assert all(0 < score <= 1 for score in answers["score"].to_pylist())
    assert staged(tmp_path) == []


def test_rows_know_the_recorders_clock(undisturbed):
    answers = table(undisturbed, "answers").to_pylist()
    recordings = {row["recording_id"]: row for row in table(undisturbed, "recordings").to_pylist()}
    for row in answers:
        start = recordings[row["recording_id"]]["start_local"]
        assert (row["start_local"] - start).total_seconds() == row["start_s"]
    # Song Meter names hold no offset: UTC stays unknown. The AudioMoth says it in its comment.
    known = {row["path"]: row["start_time"] is not None for row in recordings.values()}
    assert known == {path: path.startswith("ridge/") for path, *_ in NIGHT}


def test_second_run_has_nothing_to_do_and_changes_nothing(night, undisturbed):
    before = published(undisturbed)
    counts = run([night], undisturbed)
    assert (counts.segments, counts.recordings["done before"]) == (0, len(NIGHT))
    assert published(undisturbed) == before


def test_interrupted_run_goes_on_where_it_stopped(night, undisturbed, tmp_path, monkeypatch):
    original = local.answer_here
    answered: list[str] = []
    limit = 0

    def stopping(reads: Sequence[Read], config: ArchiveConfig, *rest: Any) -> Iterator[AnsweredSegment]:
        for number, result in enumerate(original(reads, config, *rest)):
            if number == limit:
                raise KeyboardInterrupt
            answered.append(result.segment.id)
            yield result

    monkeypatch.setattr(local, "answer_here", stopping)
    for limit in (1, 3):  # noqa: B007 (read by `stopping`)
        with pytest.raises(KeyboardInterrupt):
            run([night], tmp_path)
        (*_, record) = sorted((tmp_path / "_runs").iterdir())
        assert json.loads(record.read_text())["status"] == "interrupted"
    limit = 10**9
    run([night], tmp_path)
    assert len(set(answered)) == len(answered)
    assert published(tmp_path) == published(undisturbed)
    assert staged(tmp_path) == []


def test_a_small_archive_without_a_word_about_workers_starts_no_ray(
    night: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("naturelm.ray_cluster.connected_ray", None)
    counts = run([night], tmp_path, load_archive_config(None, SETTINGS | {"job": {"segment_minutes": 0.5}}))
    assert counts.segments > 0


@pytest.mark.slow
def test_what_this_process_leaves_ray_answers_and_the_tables_are_the_same(
    night: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "worth_starting_ray", lambda workers: 0.0)
    monkeypatch.setattr(pace, "_LEAST_WINDOWS", 1)
    monkeypatch.setattr("naturelm.archive.backends.local._WINDOWS_PER_CALL", 1)
    shown = io.StringIO()
    config = load_archive_config(None, SETTINGS | {"job": {"segment_minutes": 0.5}})
    process_archive([night], tmp_path, config, Progress(Console(file=shown, width=200)))
    assert "continuing with workers on Ray (--workers 0 stays in this process)" in shown.getvalue()
    assert published(tmp_path) == published(undisturbed)


@pytest.mark.slow
def test_killed_run_goes_on_where_it_stopped(night, undisturbed, tmp_path):
    config = tmp_path / "archive.yaml"
    config.write_text(yaml.safe_dump(SETTINGS))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "naturelm.cli", "process", night, "--out", out, "--config", config]
    killed = subprocess.Popen([*map(str, command), "--batch-size", "1"], stderr=subprocess.DEVNULL)
    while killed.poll() is None and not list(out.glob("_staging/answers/*.parquet")):
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    assert killed.returncode == -signal.SIGKILL, "the run was over before it could be killed"
    run([night], out)
    assert published(out) == published(undisturbed)
    assert staged(out) == []


def test_closed_list_gives_the_best_label_with_its_probability(night, tmp_path):
    labels = ["Owl", "Frog", "Songbird"]
    query = {"id": "which", "prompt": FOCAL, "kind": "classification", "labels": labels}
    config = load_archive_config(None, SETTINGS | {"queries": [query | {"top_k": 2}]})
    run([night / "ridge"], tmp_path, config)
    answers, detections = table(tmp_path, "answers"), table(tmp_path, "detections")
    assert set(answers["text"].to_pylist()) <= {*labels, "None"}
    assert set(detections["label"].to_pylist()) <= set(labels)
    # The best two of four: at least one of them is no "None".
    assert answers.num_rows <= detections.num_rows <= 2 * answers.num_rows
    assert "Owl" in answers["text"].to_pylist()
    # Rounded to four decimals, the second may be 0; together they are no more than 1.
    of_window: Counter[tuple[str, float]] = Counter()
    for row in detections.to_pylist():
        assert 0 <= row["score"] <= 1
        of_window[row["recording_id"], row["start_s"]] += row["score"]
    assert 0.5 < max(of_window.values()) <= 1.0001


def test_recordings_that_arrive_later_are_the_only_ones_answered(night, undisturbed, tmp_path):
    archive = tmp_path / "archive"
    shutil.copytree(night, archive)
    late = archive / NIGHT[0][0]
    late.rename(tmp_path / "card.wav")
    out = tmp_path / "out"
    run([archive], out)
    (tmp_path / "card.wav").rename(late)
    counts = run([archive], out)
    assert counts.recordings == {"ok": 1, "done before": len(NIGHT) - 1}
    assert published(out) == published(undisturbed)


def test_row_does_not_show_what_it_was_batched_with(night, undisturbed, tmp_path):
    config = load_archive_config(None, SETTINGS | {"job": SETTINGS["job"] | {"batch_size": 3}})
    run([night], tmp_path, config)
    assert published(tmp_path) == published(undisturbed)


def test_segment_length_changes_no_answer(night, undisturbed, tmp_path):
    run(
        [night],
        tmp_path,
        load_archive_config(None, SETTINGS | {"job": {"workers": 0, "segment_minutes": 10.0}}),
    )
    one, other = (table(out, "answers").to_pylist() for out in (tmp_path, undisturbed))
    assert [row | {"score": None} for row in one] == [row | {"score": None} for row in other]
    # Resampling that starts elsewhere rounds otherwise: a float16 sample now and then differs by its last bit.
    assert [row["score"] for row in one] == pytest.approx([row["score"] for row in other], abs=5e-4)


def test_another_analysis_into_the_same_directory_is_refused(night, undisturbed):
    with pytest.raises(NaturelmError, match=r"windows\.hop_s \(10\.0 there, 5\.0 now\)"):
        run([night], undisturbed, load_archive_config(None, SETTINGS | {"windows": {"hop_s": 5.0}}))


def test_run_record_tells_what_ran(undisturbed, night):
    record = json.loads(sorted((undisturbed / "_runs").iterdir())[0].read_text())
    assert record["status"] == "complete"
    assert record["roots"] == [str(night)]
    assert record["counts"]["windows"] == WINDOWS
    assert {"naturelm", "torch", "python"} <= set(record["versions"])


def test_directory_without_recordings_is_told(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(NaturelmError, match="no recordings found"):
        run([tmp_path], tmp_path / "out")


@pytest.mark.ray
def test_ray_writes_the_same_files_as_this_process(night, undisturbed, tmp_path, local_ray):
    config = load_archive_config(None, SETTINGS | {"job": {"workers": 1, "segment_minutes": 0.5}})
    run([night], tmp_path, config)
    assert published(tmp_path) == published(undisturbed)


def test_each_station_is_asked_with_its_own_label_list(night, undisturbed, tmp_path):
    found = (
        open_tables(undisturbed).sql("SELECT DISTINCT station FROM recordings ORDER BY station").fetchall()
    )
    stations = [station for (station,) in found]
    assert len(stations) == 3
    closed = {
        "id": "focal",
        "prompt": "What is the common name for the focal species in the audio? Answer:",
        "kind": "classification",
        "station_labels": [
            {"station": stations[0], "labels": ["Frog", "Cricket"]},
            {"station": stations[1], "labels": ["Owl", "Wolf"]},
        ],
    }
    with pytest.raises(NaturelmError, match="no labels for"):
        run([night], tmp_path / "refused", load_archive_config(None, SETTINGS | {"queries": [closed]}))
    config = load_archive_config(None, SETTINGS | {"queries": [closed | {"labels": ["Dog"]}]})
    run([night], tmp_path / "out", config)
    connection = open_tables(tmp_path / "out")
    allowed = {query.station: {*query.labels, "None"} for query in config.queries[0].station_labels}
    for station in stations:
        rows = connection.execute("SELECT DISTINCT text FROM answers WHERE station = ?", [station]).fetchall()
        assert rows
        assert {text for (text,) in rows} <= allowed.get(station, {"Dog", "None"})
