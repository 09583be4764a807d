"""The examples and job scripts run."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from naturelm.synthetic import sounds as synthesis
from tests.archive.runs import run
from tests.paths import REPO


def output_of(*arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False, cwd=REPO
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_demo_night_is_made_and_most_planted_sounds_are_found(tmp_path):
    night, tables = tmp_path / "night", tmp_path / "tables"
    made = output_of("examples/01_make_night.py", night).splitlines()
    assert all(Path(line).is_file() for line in made)
    run([night], tables)
    *rows, last = output_of("examples/02_planted_and_found.py", night, tables).splitlines()
    planted = (night / "planted.csv").read_text().splitlines()[1:]
    assert len(rows) == 1 + len(planted)
    found, of = int(last.split()[0]), int(last.split()[2])
    assert of == len(planted)
    assert found >= 0.7 * of


@pytest.mark.slow
def test_pocket_corpus_is_composed_of_clips_and_made_sounds(tmp_path):
    from naturelm.training.data import Stream, read_examples
    from naturelm.training.data_settings import DataSettings
    from naturelm.training.initial_model import make_model
    from naturelm.training.objective import Preparer
    from naturelm.training.settings import ModelStart

    clips, corpus = tmp_path / "esc10", tmp_path / "corpus"
    (clips / "audio").mkdir(parents=True)
    rng = np.random.default_rng(0)
    with (clips / "esc10.csv").open("w", newline="") as table:
        writer = csv.writer(table)
        writer.writerow(("filename", "fold", "category"))
        for name in ("dog", "rooster", "rain", "sea_waves", "clock_tick", "crying_baby", "sneezing", "helicopter",
                     "chainsaw", "crackling_fire"):  # fmt: skip
            soundfile.write(clips / "audio" / f"{name}.wav", synthesis.frog(rng, 22_050, 5.0), 22_050)
            writer.writerow((f"{name}.wav", 1, name))
    output_of(
        "examples/pocket/corpus.py", "--esc10", clips, "--out", corpus, "--stage1", 4, "--stage2", 30, "--held-out", 2,
        "--noises", 3, "--processes", 1,
    )  # fmt: skip
    rows = [json.loads(line) for line in (corpus / "stage2.jsonl").read_text().splitlines()]
    assert {row["task"] for row in rows} == {
        "common-multiple-detection", "common-detection-random", "common-naming", "common-naming-random", "caption",
    }  # fmt: skip
    openly = [row["text"] for row in rows if row["task"] == "common-multiple-detection"]
    assert len(openly) == 30
    assert max(text.count(",") for text in openly) in (1, 2)
    assert "None" in openly
    for row in rows:
        if row["task"] == "common-detection-random" and row["text"] != "None":
            assert set(row["text"].split(", ")) <= set(row["prompt"].split("recording? ")[1].split(", "))
    # The stream hears it, and the shape that was written reads it.
    manifests = (str(corpus / "stage2.jsonl"),)
    stream = Stream(read_examples(manifests), DataSettings(manifests=manifests, questions_per_example=2), 0)
    model = make_model(ModelStart(new=str(corpus / "shape"), patch_filters="cosine"), 0, torch.device("cpu"))
    batch = Preparer(model, 200)([stream.load(spec) for spec in stream.specs(0, 8)])
    assert model.tokenizer.decode(batch.answers[0][:-1])
    assert batch.waveforms_BS.shape == (8, 160_000)


def test_job_script_takes_what_process_takes():
    help_text = output_of("jobs/process_archive.py", "--help")
    assert "PATH..." in help_text
    assert "--address" in help_text
