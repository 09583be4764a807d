"""Probes: trained on reviews or annotations, cross-validated, applied incrementally, and read like detections."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from naturelm.cli import main
from naturelm.embeddings.probe_model import Probe, read_probe, write_probe
from naturelm.embeddings.vectors import StoredVectors
from naturelm.tables.query import open_tables
from naturelm.tables.reviews import Review, append_review
from tests.embeddings.places import STATIONS, make_archive, run

# Which windows hold owls, by the place of a recording in the archive.
OWLS = {f"{STATIONS[0]}/{STATIONS[0]}_20240501_060000.wav": 0, f"{STATIONS[1]}/{STATIONS[1]}_20240501_060000.wav": 2,
        "nodate/plain.wav": 1}  # fmt: skip


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def long_archive(tmp_path_factory) -> Path:
    return make_archive(tmp_path_factory.mktemp("probes") / "archive", windows=12)


@pytest.fixture(scope="module")
def embedded(long_archive) -> Path:
    out = long_archive.parent / "out"
    run(long_archive, out, embed=True)
    return out


@pytest.fixture
def out(embedded, tmp_path) -> Path:
    return Path(shutil.copytree(embedded, tmp_path / "out"))


def review(out: Path, windows: range = range(6), label: str = "Owl") -> None:
    """Say of the first windows of each recording whether there is an owl."""
    with open_tables(out) as tables:
        ids = dict(tables.sql("SELECT path, recording_id FROM recordings").fetchall())
    for path, first in OWLS.items():
        for window in windows:
            decision = "agree" if window % 3 == first else "disagree"
            append_review(
                out, Review(ids[path], window * 10.0, window * 10.0 + 10, "species", label, decision, "me")
            )


def owls(out: Path, label: str = "Owl") -> set[tuple[str, int]]:
    with open_tables(out) as tables:
        rows = tables.execute(
            "SELECT path, start_s FROM probe_detections WHERE label = ?", [label]
        ).fetchall()
    assert len(rows) == len(set(rows))
    return {(path, round(start_s / 10)) for path, start_s in rows}


def test_probe_finds_in_other_windows_what_was_reviewed(out, tmp_path):
    review(out)
    trained = invoke(
        "probe", "train", out, "--label", "owl", "--background", 0, "--out", tmp_path / "owl.probe"
    )
    assert trained.exit_code == 0, trained.output
    assert re.search(r"held-out stations: average precision \d\.\d{3} \(95 % interval", trained.output)
    report = json.loads((tmp_path / "owl.probe").read_text())
    assert report["trained"]["present"] == 6
    assert report["report"]["by_recordings"]["average_precision"] > 0.9
    assert report["report"]["learning_curve"][-1]["present"] == 6
    applied = invoke("probe", "apply", out, tmp_path / "owl.probe")
    assert applied.exit_code == 0, applied.output
    found = owls(out, "owl")
    unseen = {
        (path, window) for path, first in OWLS.items() for window in range(6, 12) if window % 3 == first
    }
    assert len(found & unseen) >= len(unseen) - 1
    assert len(found) <= 14


def test_probe_from_random_vectors_finds_nothing(out, tmp_path):
    """The control: labels that have nothing to do with the sound."""
    with open_tables(out) as tables:
        ids = dict(tables.sql("SELECT path, recording_id FROM recordings").fetchall())
    rng = np.random.default_rng(3)
    for path in OWLS:
        for window in range(12):
            decision = "agree" if rng.random() < 0.5 else "disagree"
            append_review(
                out, Review(ids[path], window * 10.0, window * 10.0 + 10, "species", "Owl", decision, "")
            )
    invoke("probe", "train", out, "--label", "Owl", "--background", 0, "--out", tmp_path / "p.probe")
    measured = read_probe(tmp_path / "p.probe").report["by_recordings"]
    low, high = measured["interval"]
    assert low < measured["chance"] + 0.15
    assert measured["average_precision"] < 0.85
    assert high > measured["chance"] - 0.15


def test_training_is_the_same_every_time(out, tmp_path):
    review(out)
    for name in ("a", "b"):
        assert invoke("probe", "train", out, "--label", "Owl", "--out", tmp_path / name).exit_code == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_probe_from_a_raven_table(out, long_archive, tmp_path):
    lines = ["Selection\tBegin Time (s)\tEnd Time (s)\tBegin Path\tAnnotation"]
    for path, first in OWLS.items():
        for window in range(6):
            kind = "Owl" if window % 3 == first else "Frog"
            lines.append(f"{len(lines)}\t{window * 10 + 1}\t{window * 10 + 8}\t{long_archive / path}\t{kind}")
    (tmp_path / "owls.txt").write_text("\n".join(lines), encoding="utf-8")
    source = ("--from", tmp_path / "owls.txt", "--archive", long_archive)
    done = invoke("probe", "train", out, "--label", "owl", *source, "--out", tmp_path / "owl.probe")
    assert done.exit_code == 0, done.output
    assert read_probe(tmp_path / "owl.probe").trained["present"] == 6
    done = invoke("probe", "train", out, "--label", "owll", *source, "--out", tmp_path / "x.probe")
    assert done.exit_code == 2
    assert "no row has the label 'owll'; did you mean 'Owl'" in done.output


def a_probe(out: Path, label: str = "Owl", bias: float = 100.0, **fields) -> Probe:
    stored = StoredVectors(out)
    given = {
        "encoder": "pocket",
        "revision": stored.analysis.revision,
        "pooling": "mean",
        "weights": (0.0,) * stored.width,
        "bias": bias,
    }
    return Probe(label, **(given | fields))


def test_scores_are_the_plain_formula(out, tmp_path):
    rng = np.random.default_rng(0)
    weights = tuple(float(weight) for weight in rng.normal(size=StoredVectors(out).width))
    write_probe(a_probe(out, weights=weights, bias=0.1), tmp_path / "p")
    assert invoke("probe", "apply", out, tmp_path / "p", "--min-score", "0").exit_code == 0
    with open_tables(out) as tables:
        rows = tables.sql(
            "SELECT vector, score FROM embeddings JOIN probe_detections USING (recording_id, start_s)"
        ).fetchall()
    assert len(rows) == 36
    for vector, score in rows:
        unit = np.asarray(vector, np.float64) / np.linalg.norm(vector)
        assert score == pytest.approx(1 / (1 + np.exp(-(unit @ np.array(weights) + 0.1))), abs=1e-4)


def test_only_new_days_are_scored(out, long_archive, tmp_path):
    write_probe(a_probe(out), tmp_path / "p")
    assert "36 windows of 3 days scored" in invoke("probe", "apply", out, tmp_path / "p").output
    assert (
        "0 windows of 0 days scored, 3 scored before" in invoke("probe", "apply", out, tmp_path / "p").output
    )
    more = Path(shutil.copytree(long_archive, tmp_path / "more"))
    shutil.copy(more / "007/007_20240501_060000.wav", more / "007/007_20240502_060000.wav")
    run(more, out, embed=True)
    assert (
        "12 windows of 1 days scored, 3 scored before" in invoke("probe", "apply", out, tmp_path / "p").output
    )
    assert len(owls(out)) == 48
    write_probe(a_probe(out, bias=-100.0), tmp_path / "other")
    assert "48 windows of 4 days scored" in invoke("probe", "apply", out, tmp_path / "other").output
    assert owls(out) == set()


def test_several_probes_in_one_pass(out, tmp_path):
    for name in ("Owl", "湿地の鳥"):
        write_probe(a_probe(out, name), tmp_path / f"{name}.probe")
    done = invoke("probe", "apply", out, tmp_path / "Owl.probe", tmp_path / "湿地の鳥.probe")
    assert done.exit_code == 0, done.output
    assert len(owls(out)) == len(owls(out, "湿地の鳥")) == 36
    again = invoke("probe", "apply", out, tmp_path / "Owl.probe", tmp_path / "Owl.probe")
    assert again.exit_code == 2
    assert "are both for 'Owl'" in again.output


def test_every_reader_takes_what_probes_find_for_detections(out, long_archive, tmp_path):
    write_probe(a_probe(out), tmp_path / "p")
    invoke("probe", "apply", out, tmp_path / "p")
    assert "Owl" in invoke("summary", out).output
    assert "Owl" in invoke("events", out).output
    counted = invoke(
        "query", out, "SELECT count(*) AS n FROM detections WHERE query = 'probe'", "--format", "csv"
    )
    assert counted.output.split() == ["n", "36"]
    done = invoke("export", out, "--format", "raven", "--out", tmp_path / "r.txt", "--query-id", "probe")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "r.txt").read_text(encoding="utf-8").count("probe\tOwl") == 36
    done = invoke("clips", out, "--out", tmp_path / "clips", "--label", "owl", "--top", 2)
    assert done.exit_code == 0, done.output
    assert len(list((tmp_path / "clips").rglob("*.flac"))) == 2
    assert invoke("report", out, "--out", tmp_path / "report.html").exit_code == 0
    assert "Owl" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_bad_input_is_refused_in_one_sentence(out, archive, tmp_path):
    from tests.embeddings.places import settings

    review(out, range(1))
    run(archive, tmp_path / "words", settings())
    write_probe(a_probe(out, weights=(0.0,) * 7), tmp_path / "short")
    write_probe(a_probe(out, revision="other"), tmp_path / "other")
    (tmp_path / "text").write_text("[1, 2]")
    (tmp_path / "nan").write_text((tmp_path / "short").read_text().replace('"bias": 100.0', '"bias": NaN'))
    train = ("probe", "train", out, "--out", tmp_path / "x")
    for arguments, sentence in [
        ((*train, "--label", "Wren"), "no review is about 'Wren'; "),
        ((*train, "--label", "Owl", "--background", 0), "a probe needs at least 2 of each"),
        (
            ("probe", "train", tmp_path / "words", "--label", "Owl", "--out", "x"),
            "add them with: naturelm embed",
        ),
        (("probe", "apply", out, tmp_path / "short"), "is for vectors of 7 numbers, and those of"),
        (("probe", "apply", out, tmp_path / "other"), "is for embeddings of pocket (other, mean)"),
        (("probe", "apply", out, tmp_path / "text"), "is not a probe; give a file of naturelm probe train"),
        (("probe", "apply", out, tmp_path / "nan"), "is not a probe"),
        (("probe", "apply", out, tmp_path / "missing"), "cannot be read"),
        (("probe", "apply", tmp_path / "words", tmp_path / "short"), "holds no embeddings"),
    ]:
        done = invoke(*arguments)
        assert done.exit_code == 2, done.output
        assert sentence in done.output
        assert len(done.output.strip().splitlines()) == 1
