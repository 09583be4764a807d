"""`naturelm evaluate` and `naturelm evaluate compare` as a user runs them."""

from __future__ import annotations

import csv
import json
import re

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from naturelm.cli import main
from tests.evaluation import rows


def evaluate(*arguments: object):
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])


@pytest.fixture
def everything(tmp_path):
    """Predictions of a classification, a detection and captions."""
    return rows.write(tmp_path / "p.jsonl", [*rows.classification(), *rows.detection(), *rows.captions()])


def refused(done, *parts: str) -> None:
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    lines = [line for line in done.output.splitlines() if line.startswith("Error")]
    assert len(lines) == 1
    for part in parts:
        assert part in lines[0], lines[0]


def test_directory_holds_every_file_that_the_guide_names(everything, tmp_path):
    out = tmp_path / "scores"
    done = evaluate("--predictions", everything, "--out", out)
    assert done.exit_code == 0, done.output
    metrics = json.loads((out / "metrics.json").read_text())
    assert list(metrics) == ["cbi", "enabirds", "captioning"]
    assert list(metrics["cbi"]) == ["Accuracy", "Precision", "Recall", "F1 Score", "Top-1 Accuracy"]
    assert list(metrics["enabirds"]) == ["mAP", "F1", "Recall", "Precision"]
    assert list(metrics["captioning"]) == ["cider"]
    assert f"{metrics['cbi']['Accuracy']:.4f}" in done.output
    files = {path.name for path in out.iterdir()}
    assert files == {
        *("metrics.json", "details.json", "components.csv", "labels.csv", "confusions.csv"),
        *(
            "out_of_vocabulary.csv",
            "predictions.parquet",
            "scores.png",
            "confusions-cbi.png",
            "evaluation.html",
        ),
    }
    table = pq.read_table(out / "predictions.parquet").to_pylist()
    assert [row["id"] for row in table] == [json.loads(line)["id"] for line in everything.open()]
    right = [row["correct"] for row in table if row["dataset_name"] == "cbi"]
    assert sum(right) / len(right) == pytest.approx(metrics["cbi"]["Accuracy"])


def test_spider_is_not_computed_in_silence(everything, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    done = evaluate("--predictions", everything, "--out", tmp_path / "scores")
    assert "SPIDEr was not computed, only CIDEr: Java is not installed; SPICE needs Java 8" in done.output
    done = evaluate("--predictions", everything, "--out", tmp_path / "scores", "--require-spider")
    refused(done, "Java is not installed", "leave out --require-spider")


def test_directory_of_an_evaluation_is_scored_again_to_the_same_figures(everything, tmp_path):
    evaluate("--predictions", everything, "--out", tmp_path / "one")
    done = evaluate("--predictions", tmp_path / "one", "--out", tmp_path / "two")
    assert done.exit_code == 0, done.output
    for name in ("metrics.json", "details.json", "labels.csv", "confusions.csv", "predictions.parquet"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_components_are_chosen_by_name(everything, tmp_path):
    done = evaluate("--predictions", everything, "--out", tmp_path / "s", "--components", "enabirds, cbi")
    assert done.exit_code == 0
    assert list(json.loads((tmp_path / "s/metrics.json").read_text())) == ["cbi", "enabirds"]
    done = evaluate("--predictions", everything, "--out", tmp_path / "s", "--components", "cbj")
    refused(done, "--components", "no component 'cbj'", "did you mean 'cbi'?")


def test_component_of_ones_own_is_scored_by_its_task_and_named(tmp_path):
    made = [row | {"dataset_name": "my frogs", "task": "detection"} for row in rows.detection()]
    done = evaluate("--predictions", rows.write(tmp_path / "p.csv", made), "--out", tmp_path / "s")
    assert done.exit_code == 0
    assert "my frogs: not in BEANS-Zero; scored as detection by its task detection" in done.output
    done = evaluate(
        *("--predictions", rows.write(tmp_path / "q.csv", [row | {"task": ""} for row in made])),
        *("--out", tmp_path / "s"),
    )
    refused(done, "'my frogs' is not in BEANS-Zero and has no task", "add a column task")


GOOD = {"prediction": "owl", "label": "owl", "id": "1", "dataset_name": "cbi"}


@pytest.mark.parametrize(
    ("lines", "parts"),
    [
        ("", ["contains no rows"]),
        ("\n\n", ["contains no rows"]),
        ('{"prediction": "owl", "id": "1", "dataset_name": "cbi"}', ["has no column label"]),
        ('{"prediction": "owl", "label": 3, "dataset_name": "cbi"}', ["row 1", "label is 3, not text"]),
        ('{"prediction": "owl", "label": null, "dataset_name": "cbi"}', ["row 1", "label is missing"]),
        ('{"prediction": "owl", "label": " , ", "dataset_name": "cbi"}', ["row 1", "label is empty"]),
        ('{"prediction": 7, "label": "owl", "dataset_name": "cbi"}', ["prediction is 7, not text"]),
        ('{"prediction": "owl", "label": "owl", "dataset_name": ""}', ["dataset_name is empty"]),
        ("[1, 2]", ["row 1", "one object on each line"]),
        ("{", ["row 1", "not valid JSON"]),
        (
            f"{json.dumps(GOOD)}\n\n{json.dumps(GOOD)}",
            ["row 2", "id '1' appears twice in cbi, first in row 1"],
        ),
    ],
)
def test_invalid_rows_are_refused_in_one_sentence(lines, parts, tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text(lines)
    refused(evaluate("--predictions", path, "--out", tmp_path / "s"), "p.jsonl", *parts)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("p.csv", b"", ["has no column prediction, label, dataset_name"]),
        ("p.csv", b"prediction,label,dataset_name\nowl,owl\n", ["row 1", "has 2 cells, the header 3"]),
        ("p.csv", b'prediction,label,dataset_name\n"owl,owl,cbi\n', ["is not valid CSV"]),
        ("p.csv", "prediction,label,dataset_name\nþ,owl,cbi\n".encode("latin-1"), ["is not UTF-8 text"]),
        ("p.parquet", b"PAR1", ["is not a Parquet file"]),
        ("p.xlsx", b"", ["ends in '.xlsx'", ".jsonl"]),
    ],
)
def test_broken_files_are_refused_in_one_sentence(name, content, parts, tmp_path):
    (tmp_path / name).write_bytes(content)
    refused(evaluate("--predictions", tmp_path / name, "--out", tmp_path / "s"), name, *parts)


def test_missing_options_and_files_are_named(tmp_path):
    refused(evaluate("--out", tmp_path / "s"), "--predictions")
    refused(evaluate("--predictions", tmp_path / "p.jsonl"), "--out is missing")
    refused(evaluate("--predictions", tmp_path / "p.jsonl", "--out", tmp_path / "s"), "No such file")
    refused(evaluate("--predictions", tmp_path, "--out", tmp_path / "s"), "contains no predictions.parquet")
    path = rows.write(tmp_path / "p.jsonl", [GOOD])
    refused(evaluate("--predictions", path, "--out", path), "is a file; give --out a directory")


def test_hostile_labels_change_neither_page_nor_tables(tmp_path):
    made = [
        {"prediction": text[::-1], "label": text, "id": str(i), "dataset_name": "cbi"}
        for i, text in enumerate(rows.HOSTILE * 2)
    ]
    made += [row | {"dataset_name": "<b>=x</b>", "task": "classification"} for row in made]
    done = evaluate("--predictions", rows.write(tmp_path / "p.parquet", made), "--out", tmp_path / "s")
    assert done.exit_code == 0, done.output
    page = (tmp_path / "s/evaluation.html").read_text()
    assert "<script" not in page
    assert "<b>=x" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    with (tmp_path / "s/labels.csv").open(newline="") as file:
        labels = [row["label"] for row in csv.DictReader(file)]
    assert "'=1+1" in labels
    assert not any(re.match(r"[=+@-]", label) for label in labels)


def test_page_loads_nothing_from_elsewhere(everything, tmp_path):
    evaluate("--predictions", everything, "--out", tmp_path / "s")
    page = (tmp_path / "s/evaluation.html").read_text()
    assert not re.search(r"(src|href)=\"?(https?:)?//", page)
    assert "default-src 'none'" in page


# -- compare -------------------------------------------------------------------------------------------------


def test_comparison_of_a_set_with_itself_finds_nothing(everything, tmp_path):
    done = evaluate("compare", everything, everything, "--out", tmp_path / "c")
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "c/comparison.json").read_text())["differences"]
    assert {row["component"] for row in found} == {"cbi", "enabirds", "captioning"}
    for row in found:
        assert row["difference"] == 0
        assert row["interval"] == [0, 0]
        assert row["p"] == 1


def test_clear_difference_is_found_and_pairs_are_matched_by_id(tmp_path):
    worse = rows.classification(300)
    better = [row | {"prediction": row["label"]} for row in reversed(worse)]
    paths = [rows.write(tmp_path / name, made) for name, made in (("a.csv", worse), ("b.parquet", better))]
    done = evaluate("compare", *paths, "--out", tmp_path / "c")
    assert done.exit_code == 0, done.output
    accuracy = json.loads((tmp_path / "c/comparison.json").read_text())["differences"][0]
    assert accuracy["metric"] == "Accuracy"
    assert accuracy["second"] == 1.0
    assert accuracy["interval"][0] > 0
    assert accuracy["p"] < 0.01
    assert (tmp_path / "c/comparison.png").read_bytes().startswith(b"\x89PNG")
    assert "a.csv" in (tmp_path / "c/comparison.html").read_text()


def test_paired_interval_is_narrower_than_that_of_either_set(tmp_path):
    first = rows.classification(400)
    second = [row | {"prediction": row["label"]} if i % 20 == 0 else row for i, row in enumerate(first)]
    paths = [rows.write(tmp_path / f"{n}.jsonl", made) for n, made in enumerate((first, second))]
    evaluate("compare", *paths, "--out", tmp_path / "c")
    low, high = json.loads((tmp_path / "c/comparison.json").read_text())["differences"][0]["interval"]
    evaluate("--predictions", paths[0], "--out", tmp_path / "s")
    single = json.loads((tmp_path / "s/details.json").read_text())["components"][0]["intervals"]["Accuracy"]
    assert high - low < 0.7 * (single[1] - single[0])


def test_sets_that_cannot_be_paired_are_refused(tmp_path):
    made = rows.classification(20)
    first = rows.write(tmp_path / "a.jsonl", made)

    def compared(other: list[dict]):
        return evaluate("compare", first, rows.write(tmp_path / "b.jsonl", other))

    refused(compared(made[:-1]), "a.jsonl has 20 rows", "b.jsonl 19")
    refused(compared([*made[:-1], made[-1] | {"id": "x"}]), "lacks 1 ids", "cbi-19")
    refused(compared([*made[:-1], made[-1] | {"label": "x"}]), "cbi-19", "has label")
    refused(compared([row | {"dataset_name": "watkins"} for row in made]), "share no component")
