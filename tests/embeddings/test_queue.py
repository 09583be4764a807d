"""Queues: what is chosen, that it is the same for the same seed, progress, and agreement of reviewers."""

from __future__ import annotations

import csv
import datetime as dt
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from naturelm.cli import main
from naturelm.tables.queues import k_centre
from naturelm.tables.reviews import Review, append_review
from tests.tables.make_tables import detection, recording, write_results


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def results(tmp_path) -> Path:
    """Per station twenty windows of owls with scores from 0 to 0.95, and wrens; a second query knows half the owls."""
    recordings, detections = [], []
    for station in ("007", "湿地"):
        of = recording(f"{station}.wav", dt.datetime(2024, 5, 1), station=station, duration_s=200.0)
        recordings.append(of)
        for number in range(20):
            detections.append(detection(of, number * 10.0, "Owl", number / 20))
            if number % 2:
                detections.append(detection(of, number * 10.0, "owl", 0.5, query="latin"))
        detections.append(detection(of, 0.0, "Wren", 0.5))
    return write_results(tmp_path / "results", recordings, detections)


def chosen(results: Path, strategy: str, *more: object) -> list[dict[str, str]]:
    out = results.parent / "queue.csv"
    done = invoke("queue", results, "--strategy", strategy, "--out", out, "--overwrite", *more)
    assert done.exit_code == 0, done.output
    with out.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_so_many_of_each_station_and_the_same_for_a_seed(results):
    first = chosen(results, "random", "--per-station", 3)
    assert [row["station"] for row in first] == ["007"] * 3 + ["湿地"] * 3
    assert chosen(results, "random", "--per-station", 3) == first
    assert chosen(results, "random", "--per-station", 3, "--seed", 1) != first


def test_uncertain_takes_scores_nearest_to_a_half(results):
    rows = chosen(results, "uncertain", "--label", "OWL", "--per-station", 12)
    assert {float(row["score"]) for row in rows if row["query"] == "species"} <= {0.45, 0.5, 0.55}


def test_stratified_takes_of_every_bin(results):
    rows = chosen(results, "stratified", "--label", "owl", "--per-station", 5)
    for station in ("007", "湿地"):
        bins = sorted(int(float(row["score"]) * 5) for row in rows if row["station"] == station)
        assert bins == [0, 1, 2, 3, 4]


def test_disagree_takes_what_one_query_alone_finds(results):
    rows = chosen(results, "disagree", "--per-station", 50)
    assert len(rows) == 20
    assert {(row["query"], row["label"]) for row in rows} == {("species", "Owl")}
    assert {float(row["start_s"]) % 20 for row in rows} == {0.0}


def test_diverse_vectors_are_far_from_each_other():
    unit = np.array([[1, 0], [0.999, 0.04], [0, 1], [-1, 0], [0.998, 0.06]], np.float32)
    assert k_centre(unit, 3) == [0, 3, 2]
    assert sorted(k_centre(unit, 9)) == [0, 1, 2, 3, 4]


def test_progress_and_agreement(results):
    rows = chosen(results, "random", "--per-station", 3)
    for number, row in enumerate(rows[:4]):
        key = (row["recording_id"], float(row["start_s"]), float(row["end_s"]), row["query"], row["label"])
        append_review(results, Review(*key, "agree" if number % 2 else "disagree", "Ada"))
        append_review(results, Review(*key, "agree", "Bo"))
    done = invoke("queue", results, "--progress", results.parent / "queue.csv")
    assert done.output.splitlines() == [
        "4 of 6 reviewed",
        "Ada: 4",
        "Bo: 4",
        "Ada and Bo: 4 by both, 50% equal, Cohen's kappa 0.00",
    ]
    again = chosen(results, "random", "--per-station", 50)
    assert not {(row["recording_id"], row["start_s"], row["query"], row["label"]) for row in rows[:4]} & {
        (row["recording_id"], row["start_s"], row["query"], row["label"]) for row in again
    }


def test_bad_input_is_refused_in_one_sentence(results, tmp_path):
    queue = tmp_path / "q.csv"
    (tmp_path / "text.csv").write_text("a,b\n1,2\n")
    for arguments, sentence in [
        (("--strategy", "random"), "give --strategy and --out FILE"),
        (("--strategy", "random", "--out", queue, "--label", "Owll"), "did you mean"),
        (("--strategy", "diverse", "--out", queue), "the detections have no embeddings"),
        (("--strategy", "disagree", "--out", queue, "--label", "Wren"), "no queries or probes disagree"),
        (("--progress", tmp_path / "missing.csv"), "cannot be read"),
        (("--progress", tmp_path / "text.csv"), "is not a queue"),
        (("--progress", queue, "--strategy", "random"), "leave out --strategy"),
    ]:
        done = invoke("queue", results, *arguments)
        assert done.exit_code == 2, done.output
        assert sentence in done.output
