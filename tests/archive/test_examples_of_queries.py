"""Queries with example recordings: found from the settings file, read once, part of the analysis."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import yaml
from click.testing import CliRunner

from naturelm.cli import main
from naturelm.config.archive import ArchiveConfig
from naturelm.config.loading import load_archive_config
from naturelm.engine.engine import Engine
from naturelm.engine.queries import EngineQuery, QueryExample
from naturelm.errors import NaturelmError
from naturelm.models import load_model
from naturelm.synthetic.sounds import SOUNDS

PROMPT = "What are the common names for the species in the audio, if any?"
RATE_HZ = 16_000


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An archive of one recording, and settings with two examples beside it."""
    rng = np.random.default_rng(0)
    (tmp_path / "archive" / "湿地").mkdir(parents=True)
    (tmp_path / "settings" / "known").mkdir(parents=True)
    for name, place in (
        ("Owl", "archive/湿地/20260501_050000.wav"),
        ("Frog", "settings/known/frog.wav"),
        ("Bat", "settings/known/bat.wav"),
    ):
        soundfile.write(tmp_path / place, 0.3 * SOUNDS[name](rng, RATE_HZ, 20.0), RATE_HZ)
    return tmp_path


def settings(project: Path, **changes: object) -> Path:
    example = {"path": "known/frog.wav", "start_s": 2, "end_s": 8, "answer": "Frog"} | changes
    query = {"id": "few", "prompt": PROMPT, "examples": [example, {"path": "known/bat.wav", "answer": "Bat"}]}
    path = project / "settings" / "few.yaml"
    path.write_text(yaml.safe_dump({"queries": [query], "generation": {"max_new_tokens": 8}}))
    return path


def test_process_reads_the_examples_before_every_window(project, monkeypatch):
    monkeypatch.chdir(project / "archive")
    arguments = ["process", ".", "--out", "../tables", "--config", str(settings(project)), "--workers", "0"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    rows = pq.read_table(project / "tables/answers").to_pylist()
    known = [soundfile.read(project / f"settings/known/{n}.wav", dtype="float32")[0] for n in ("frog", "bat")]
    shown = (
        QueryExample(known[0][2 * RATE_HZ : 8 * RATE_HZ], "Frog"),
        QueryExample(known[1][: 10 * RATE_HZ], "Bat"),
    )
    engine = Engine(load_model("pocket"), [EngineQuery(PROMPT, 8, examples=shown)])
    sound, _ = soundfile.read(project / "archive/湿地/20260501_050000.wav", dtype="float32")
    # Decoded sound comes from its process as float16.
    windows = sound.reshape(2, -1).astype(np.float16).astype(np.float32)
    expected = [(answer.text, round(answer.score, 4)) for (answer,) in engine.answer(windows)]
    rows.sort(key=lambda row: row["start_s"])
    assert [(row["text"], row["score"]) for row in rows] == expected
    analysis = (project / "tables/analysis.yaml").read_text().partition("\nanalysis:")[2]
    assert "answer: Frog" in analysis
    assert "identity:" in analysis


def test_a_moved_example_is_the_same_analysis_and_another_sound_is_not(project):
    first = load_archive_config(settings(project)).analysis_hash("r")
    (project / "settings").rename(project / "moved")
    (project / "settings").mkdir()
    moved = project / "moved" / "few.yaml"
    assert load_archive_config(moved).analysis_hash("r") == first
    soundfile.write(project / "moved/known/bat.wav", np.zeros(10 * RATE_HZ), RATE_HZ)
    assert load_archive_config(moved).analysis_hash("r") != first


def test_settings_without_examples_are_the_analysis_that_they_were():
    queries = ArchiveConfig().analysis("r")["queries"]
    assert all("examples" not in query for query in queries.values())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"path": "none.wav"}, "query 'few' has the example 'none.wav', which cannot be read (No such file"),
        ({"end_s": 2.2}, "starts at 2 s and ends at 2.2 s; give at least 0.5 s"),
        ({"end_s": 30}, "query few has an example of 28 s, longer than a window of 10 s"),
        ({"answer": " "}, "queries.0.examples.0.answer"),
        ({"anser": "x"}, "unknown setting queries.0.examples.0.anser"),
    ],
)
def test_examples_that_cannot_be_are_refused(project, changes, expected):
    with pytest.raises(NaturelmError) as caught:
        load_archive_config(settings(project, **changes))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
