"""The measurements measure what they say, and run where little is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from naturelm.bench.baselines import best_label_one_by_one
from naturelm.cli import main
from naturelm.engine.engine import Engine
from naturelm.engine.queries import EngineQuery
from naturelm.errors import NaturelmError
from naturelm.models import NatureLM
from naturelm.synthetic.sounds import owl
from naturelm.synthetic.stand_ins import QUESTIONS, made_up_labels, made_up_windows, random_full_size
from tests.paths import REPO, SMALL_MODEL

ENGINE = ["engine", "--model", str(SMALL_MODEL), "--windows", "3", "--plain-windows", "2", "--repeats", "1"]


@pytest.fixture(scope="module")
def model() -> NatureLM:
    return NatureLM.from_pretrained(SMALL_MODEL)


def bench(*arguments: str) -> Any:
    result = CliRunner().invoke(main, ["bench", *arguments])
    assert result.exit_code == 0, result.output
    return result


def test_engine_and_plain_path_are_measured_in_one_run_and_agree() -> None:
    shown = bench(*ENGINE, "--queries", "2", "--labels", "12", "--against", "plain", "--format", "json")
    measured = json.loads(shown.stdout)
    assert measured["windows_per_s"] == pytest.approx(3 / measured["runs_s"]["engine"][0])
    assert measured["plain"]["windows_per_s"] == pytest.approx(2 / measured["runs_s"]["plain"][0])
    assert measured["plain"]["ratio"] == pytest.approx(
        measured["windows_per_s"] / measured["plain"]["windows_per_s"]
    )
    assert measured["plain"]["same_answers"] == 1.0
    assert measured["plain"]["largest_score_difference"] < 1e-5
    assert measured["tokens_answered"] > 1
    assert 0 < measured["roofline"]["share"] < 1


def test_the_table_shows_rate_ratio_and_where_the_time_goes() -> None:
    shown = bench(*ENGINE, "--max-new-tokens", "2", "--against", "plain").output
    for name in (
        "windows per second",
        "× real time",
        "encode",
        "prefill",
        "decode",
        "roofline",
        "engine / plain",
    ):
        assert name in shown


@pytest.mark.slow
def test_the_engine_is_measured_where_little_is_installed() -> None:
    absent = (
        "ray",
        "rich",
        "pydantic",
        "pyarrow",
        "duckdb",
        "soundfile",
        "soxr",
        "pandas",
        "torchaudio",
    )
    program = (
        "import sys\n"
        f"for name in {absent!r}: sys.modules[name] = None\n"
        "import naturelm.bench.gpu\n"
        "from naturelm.cli.bench import bench\n"
        f"bench({ENGINE!r} + ['--max-new-tokens', '2'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPO, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "windows per second" in done.stdout


def test_the_published_layout_computes_what_the_model_does(model: NatureLM) -> None:
    waveforms = torch.from_numpy(made_up_windows(model, 3))
    with torch.inference_mode():
        ours, published = model.encode_audio(waveforms), model.encode_as_published(waveforms)
    assert (ours - published).abs().max() < 1e-4 * ours.abs().max()
    shown = json.loads(
        bench(
            "encode", "--model", str(SMALL_MODEL), "--windows", "2", "--repeats", "1", "--format", "json"
        ).stdout
    )
    assert shown["ratio"] > 0
    assert shown["largest_relative_difference"] < 1e-4


def test_one_label_after_the_other_comes_to_the_engines_candidates(model: NatureLM) -> None:
    query = EngineQuery(QUESTIONS[2], labels=made_up_labels(40), top_k=4)
    window = made_up_windows(model, 1)
    slow = best_label_one_by_one(model, query, torch.from_numpy(window))
    quick = Engine(model, [query]).answer(window)[0][0]
    assert [label for label, _ in slow.candidates] == [label for label, _ in quick.candidates]
    assert [p for _, p in slow.candidates] == pytest.approx([p for _, p in quick.candidates], abs=1e-5)


def test_full_size_is_the_released_models_size() -> None:
    full = random_full_size("meta", torch.bfloat16)
    assert sum(p.numel() for p in full.language_model.parameters()) > 8.0e9
    assert full.language_model.get_input_embeddings().weight.shape == (128256, 4096)
    assert sum(p.numel() for p in full.beats.parameters()) == pytest.approx(90e6, rel=0.02)
    assert full.audio_tokens == 29
    tokens = full.prompt_tokens(QUESTIONS[2])
    # The real tokenizer makes 8 and 24 of them.
    assert len(tokens.head) + len(tokens.tail) == pytest.approx(32, abs=6)


def test_made_up_labels_are_all_different_and_run_out() -> None:
    assert len(set(made_up_labels(2000))) == 2000
    with pytest.raises(NaturelmError, match="2001 labels"):
        made_up_labels(2001)


def test_made_up_labels_have_as_many_tokens_as_a_real_vocabulary_gives() -> None:
    full = random_full_size("meta", torch.bfloat16, llm_layers=1)
    assert {len(full.text_tokens(label)) for label in made_up_labels(200)} <= {4, 5, 6}


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    sound = owl(np.random.default_rng(1), 48_000, 25.0)
    soundfile.write(tmp_path / "S4A0_20240601_040000.wav", sound, 48_000)
    soundfile.write(tmp_path / "S4A0_20240601_050000.flac", sound, 48_000)
    (tmp_path / "S4A0_20240601_060000.wav").write_bytes(b"")
    return tmp_path


def test_decoding_is_measured_by_format_and_broken_files_are_counted(recordings: Path) -> None:
    measured = json.loads(bench("decode", str(recordings), "--format", "json").stdout)
    assert {kind.split("/")[0] for kind in measured["kinds"]} == {"WAV", "FLAC"}
    for kind in measured["kinds"].values():
        assert kind["hours"] == pytest.approx(25 / 3600)
        assert kind["times_real_time_per_core"] > 1
    assert measured["not_ok"] == 1


def test_the_whole_job_is_measured_and_leaves_nothing_behind(recordings: Path) -> None:
    before = sorted(recordings.iterdir())
    measured = json.loads(
        bench(
            "pipeline", str(recordings), "--model", str(SMALL_MODEL), "--workers", "0", "--format", "json"
        ).stdout
    )
    assert measured["windows"] == 6
    assert measured["sound_s"] == pytest.approx(50.0, abs=0.01)
    assert measured["recordings"]["ok"] == 2
    assert sorted(recordings.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["engine", "--queries", "0"], "there is no query to run"),
        (["engine", "--random-weights"], "naturelm-8b"),
        (["engine", "--model", "no-such-model"], "no-such-model"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_2(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(main, ["bench", *arguments])
    assert result.exit_code == 2
    assert words in result.output
    assert "Traceback" not in result.output
