"""`naturelm finetune` from labels to a model, and what it reports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from naturelm.cli import main
from naturelm.errors import NaturelmError
from naturelm.models import load_model
from naturelm.tables.query import open_tables
from naturelm.tables.reviews import Review, append_review
from naturelm.training.export import write_checkpoint
from naturelm.training.finetune import DEFAULTS, Comparison, Share, compare, sign_test, steps_for
from naturelm.training.labelled_windows import Clip, read_labels
from naturelm.training.manifest import read_manifest
from tests.paths import REPO
from tests.training.runs import config, run


def call(*arguments: object):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def tiny(shape, manifest, tmp_path_factory) -> Path:
    """A checkpoint of a tiny model."""
    directory = tmp_path_factory.mktemp("tiny")
    run(config(shape, manifest, directory / "run", optimisation={"steps": 1}))
    write_checkpoint(str(directory / "run"), directory / "model")
    return directory / "model"


@pytest.fixture
def labels(manifest, tmp_path) -> Path:
    """A selection table of the manifest's recordings."""
    table = tmp_path / "labels.txt"
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    table.write_text(
        "Begin File\tBegin Time (s)\tEnd Time (s)\tAnnotation\n"
        + "".join(f"{row['path']}\t0\t2\t{('owl', 'frog')[n % 2]}\n" for n, row in enumerate(rows))
    )
    return table


def test_labels_become_a_model_and_a_verdict(labels, manifest, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ("finetune", "labels.txt", "--audio", manifest.parent, "--out", "tuned", "--model", tiny)
    done = call(*arguments, "--steps", 3)
    assert done.exit_code == 0, done.output
    assert "The new model is not shown to be better" in done.output
    train, held_out = (read_manifest(tmp_path / "tuned" / f"{name}.jsonl") for name in ("train", "held_out"))
    assert {example.path for example in train}.isdisjoint(example.path for example in held_out)
    assert {example.text for example in train if example.task == "common-naming"} == {"Owl", "Frog"}
    comparison = json.loads((tmp_path / "tuned/comparison.json").read_text())
    assert comparison["found"].keys() == {"Owl", "Frog"}
    load_model(tmp_path / "tuned/model")
    refused = call(*arguments)
    assert refused.exit_code == 2
    assert "tuned: is not empty; give --out a new directory, or --resume" in refused.output
    again = call(*arguments, "--steps", 3, "--resume")
    assert again.exit_code == 0, again.output
    assert "nothing to do: all 3 steps" in again.output


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["--workers", 2], "--workers needs Ray; give --ray too"),
        (["--model", "nowhere"], "there is no model"),
        (["--audio", "none"], "none: there is no such directory; give --audio"),
        (["--held-out", "none"], "none: there is no such file or directory"),
        (["--config", "none.yaml"], "none.yaml: cannot read the configuration"),
        (["--steps", 0], "0 is not in the range"),
    ],
)
def test_mistake_is_one_sentence_and_exit_code_2(labels, manifest, tmp_path, monkeypatch, changes, expected):
    monkeypatch.chdir(tmp_path)
    refused = call("finetune", labels, "--audio", manifest.parent, "--out", "out", *changes)
    assert refused.exit_code == 2, refused.output
    assert expected in refused.output
    assert "Traceback" not in refused.output
    assert not (tmp_path / "out").exists()


def test_reviews_are_labels(manifest, tiny, tmp_path):
    results = tmp_path / "results"
    done = call("process", manifest.parent, "--out", results, "--model", tiny, "--window", 2, "--workers", 0)
    assert done.exit_code == 0, done.output
    assert "contains no reviews" in call("finetune", results, "--out", tmp_path / "out").output
    with open_tables(results) as tables:
        recordings = dict(tables.sql("SELECT path, recording_id FROM recordings").fetchall())
    for name, label, decision, new_label in (
        ("0.wav", "Owl", "disagree", None),
        ("0.wav", "Owl", "agree", None),
        ("1.wav", "Owl", "relabel", "frog"),
        ("2.wav", "Owl", "disagree", None),
    ):
        append_review(
            results, Review(recordings[name], 0.0, 2.0, "species", label, decision, "someone", new_label)
        )
    clips = {clip.path.name: clip for clip in read_labels(results, None)}
    assert {name: clip.names for name, clip in clips.items()} == {
        "0.wav": ("Owl",),
        "1.wav": ("Frog",),
        "2.wav": (),
    }
    assert clips["0.wav"].span == (0.0, 2.0)
    assert clips["0.wav"].path == manifest.parent / "0.wav"
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(NaturelmError, match="3 of 3 reviewed recordings are not where they were"):
        read_labels(results, tmp_path / "elsewhere")


def test_settings_file_is_what_is_used_without_one():
    assert yaml.safe_load((REPO / "configs/train/finetune.yaml").read_text()) == DEFAULTS


@pytest.mark.parametrize(("clips", "steps"), [(5, 12), (100, 250), (240, 250), (1000, 250), (10_000, 1875)])
def test_steps_fit_the_number_of_clips(clips, steps):
    assert steps_for(clips, 16) == steps


def answered(*names: str) -> list[frozenset[str]]:
    return [frozenset(filter(None, name.split("+"))) for name in names]


def test_comparison_counts_each_label_and_each_clip():
    clips = [Clip(Path("a.wav"), None, names) for names in (("Owl",), ("Owl", "Frog"), (), ("Frog",))]
    found = compare(clips, answered("owl", "owl", "owl", ""), answered("owl", "frog+owl", "", "owl"))
    assert found.exact == (Share.make(1, 4), Share.make(3, 4))
    assert (found.gained, found.lost) == (2, 0)
    assert [share.right for share in found.found["Owl"]] == [2, 2]
    assert [share.right for share in found.found["Frog"]] == [0, 1]
    assert [(share.right, share.of) for share in found.correct["Owl"]] == [(2, 3), (2, 3)]
    assert str(found.correct["Frog"][0]) == "-"


@pytest.mark.parametrize(
    ("gained", "lost", "expected"),
    [(10, 0, "is better"), (5, 4, "is not shown to be better"), (0, 10, "is worse"), (0, 0, "is not shown")],
)
def test_verdict_is_plain(gained, lost, expected):
    comparison = Comparison((Share.make(1, 9), Share.make(2, 9)), {}, {}, gained, lost)
    assert expected in comparison.verdict()


def test_sign_test_is_exact():
    assert sign_test(10, 0) == pytest.approx(2 / 1024)
    assert sign_test(3, 3) == 1.0
    assert sign_test(0, 0) == 1.0
    assert sign_test(9, 1) == pytest.approx(22 / 1024)
