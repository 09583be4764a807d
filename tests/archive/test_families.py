"""SALMONN and LTU over an archive: detections from closed lists, captions from free answers, each row once."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from naturelm.cli import main
from tests.archive.faults import committed, wait_until
from tests.archive.runs import published, staged, table
from tests.paths import LTU_PARITY, REPO, SALMONN_PARITY

MODELS = {"salmonn": SALMONN_PARITY, "ltu": LTU_PARITY / "release"}
# Two labels, so that one of them is among the detections whatever random weights think of "None".
QUERIES = """
queries:
  - {id: group, kind: classification, prompt: "What is heard?", labels: [bird song, rain], top_k: 2}
  - {id: caption, kind: caption, prompt: "Please describe the audio.", max_new_tokens: 6}
"""
SEARCH = {
    "salmonn": "generation: {num_beams: 4}",
    "ltu": "generation: {do_sample: true, temperature: 0.9, top_k: 500, top_p: 0.95, repetition_penalty: 1.1}",
}


def made_archive(directory: Path, recordings: int) -> Path:
    rng = np.random.default_rng(0)
    for number in range(recordings):
        path = directory / f"S{number % 2}" / f"S{number % 2}_20260521_{number:02d}0000.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, rng.normal(0, 0.1, 16_000 * 13).astype(np.float32), 16_000)
    return directory


def arguments(family: str, archive: Path, out: Path, settings: Path) -> list[str]:
    settings.write_text(f"{QUERIES}{SEARCH[family]}\n")
    model = ["--model", str(MODELS[family]), "--config", str(settings), "--workers", "0", "--batch-size", "1"]
    return ["process", str(archive), "--out", str(out), *model]


@pytest.mark.parametrize("family", MODELS)
def test_process_writes_detections_and_captions(family: str, tmp_path: Path):
    archive = made_archive(tmp_path / "archive", 3)
    done = CliRunner().invoke(main, arguments(family, archive, tmp_path / "out", tmp_path / "settings.yaml"))
    assert done.exit_code == 0, done.output
    detections = table(tmp_path / "out", "detections").to_pylist()
    captions = table(tmp_path / "out", "captions").to_pylist()
    windows = {(name, start) for name in {row["path"] for row in captions} for start in (0.0, 10.0)}
    assert Counter((row["path"], row["start_s"]) for row in captions) == Counter(windows)
    assert {(row["path"], row["start_s"]) for row in detections} == windows
    assert {row["label"] for row in detections} <= {"bird song", "rain"}
    assert all(0 <= row["score"] <= 1 for row in detections)


@pytest.mark.slow
@pytest.mark.parametrize("family", MODELS)
def test_killed_run_is_continued_and_has_each_row_once(family: str, tmp_path: Path):
    archive = made_archive(tmp_path / "archive", 24)
    command = arguments(family, archive, tmp_path / "out", tmp_path / "settings.yaml")
    process = subprocess.Popen([sys.executable, "-m", "naturelm.cli", *command], cwd=REPO)
    wait_until(lambda: committed(tmp_path / "out") >= 3, process)
    process.kill()
    process.wait()
    assert committed(tmp_path / "out") < 24
    resumed = CliRunner().invoke(main, command)
    assert resumed.exit_code == 0, resumed.output
    whole = arguments(family, archive, tmp_path / "whole", tmp_path / "settings.yaml")
    assert CliRunner().invoke(main, whole).exit_code == 0
    assert published(tmp_path / "out") == published(tmp_path / "whole")
    assert staged(tmp_path / "out") == []
    captions = table(tmp_path / "out", "captions").to_pylist()
    assert len({(row["path"], row["start_s"]) for row in captions}) == len(captions) == 48


@pytest.mark.parametrize("family", MODELS)
def test_without_queries_a_model_that_answers_in_sentences_gets_a_closed_list(family: str, tmp_path: Path):
    archive = made_archive(tmp_path / "archive", 1)
    options = ["--out", str(tmp_path / "out"), "--model", str(MODELS[family]), "--workers", "0"]
    done = CliRunner().invoke(main, ["process", str(archive), *options])
    assert done.exit_code == 0, done.output
    answers = table(tmp_path / "out", "answers").to_pylist()
    assert {row["query"] for row in answers} == {"group", "caption"}
    refused = CliRunner().invoke(main, ["process", str(archive), *options, "--query", "birds=Which birds?"])
    assert refused.exit_code == 2
    assert len(refused.stderr.splitlines()) == 1
    assert "query birds is of kind detection" in refused.stderr
    assert "--query birds:caption=TEXT" in refused.stderr
