"""Figures are those of the official tool, from every format, to nine decimals."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from naturelm.evaluation.intervals import interval, resample
from naturelm.evaluation.metrics import classification_figures, detection_figures
from naturelm.evaluation.predictions import group, read_predictions
from naturelm.evaluation.scored import score
from tests.evaluation import official, rows
from tests.paths import SHARED

PUBLISHED = SHARED / "data/beans_zero"


def figures(made: list[dict]) -> dict[str, float]:
    (part,) = group(made, "made")
    return score(part).figures()


def close(found: dict[str, float], expected: dict[str, float]) -> bool:
    return found.keys() == expected.keys() and all(
        abs(found[name] - expected[name]) < 1e-9 for name in expected
    )


@pytest.mark.parametrize("seed", range(4))
def test_classification_is_scored_as_officially(seed):
    made = rows.classification(seed=seed)
    answers, labels = [row["prediction"] for row in made], [row["label"] for row in made]
    assert close(figures(made), official.classification(answers, labels))


@pytest.mark.parametrize("seed", range(4))
def test_detection_is_scored_as_officially(seed):
    made = rows.detection(seed=seed)
    answers, labels = [row["prediction"] for row in made], [row["label"] for row in made]
    assert close(figures(made), official.detection(answers, labels))


def test_answer_is_cut_at_the_end_token_and_matched_without_a_limit():
    made = [
        {"prediction": "owl<|end_of_text|>wolf", "label": "owl", "dataset_name": "cbi"},
        {"prediction": "something else altogether", "label": "wolf", "dataset_name": "cbi"},
    ]
    (part,) = group(made, "made")
    assert score(part).rows()["matched"][0] == "owl"
    assert score(part).rows()["matched"][1] in ("owl", "wolf")


def test_label_with_commas_is_one_label_of_a_classification():
    made = [
        {"prediction": "Owl, Wolf", "label": "Owl, Wolf", "dataset_name": "cbi"},
        {"prediction": "Owl", "label": "Owl", "dataset_name": "cbi"},
    ]
    found = figures(made)
    assert found["Accuracy"] == 1.0
    # Officially a label that lists several names contains none that equals the whole of it.
    assert found["Top-1 Accuracy"] == 0.5


def test_detection_answers_farther_than_five_edits_are_none():
    made = [
        {"prediction": "abcdeXXXXX", "label": "abcdefghij", "dataset_name": "hiceas"},
        {"prediction": "abcdXXXXXX", "label": "abcdefghij", "dataset_name": "hiceas"},
        {"prediction": "None", "label": "None", "dataset_name": "hiceas"},
    ]
    (part,) = group(made, "made")
    assert score(part).rows()["matched"] == ["abcdefghij", "None", "None"]
    assert figures(made)["Recall"] == 0.5


def test_captions_are_scored_by_cider_of_their_own_words():
    made = rows.captions()
    same = [row | {"prediction": row["label"]} for row in made]
    assert figures(same)["cider"] == pytest.approx(10.0)
    assert 0 < figures(made)["cider"] < 10


@pytest.mark.parametrize("kind", ["classification", "detection"])
def test_row_without_an_answer_counts_as_wrong(kind):
    made = getattr(rows, kind)()
    perfect = [row | {"prediction": row["label"]} for row in made]
    without = [row | {"prediction": None} if i < 60 else row for i, row in enumerate(perfect)]
    by_status = [row | {"status": "failed" if i < 60 else "ok"} for i, row in enumerate(perfect)]
    main = next(iter(figures(perfect)))
    assert figures(perfect)[main] == pytest.approx(1.0)
    assert figures(without)[main] < 0.9
    assert figures(by_status) == figures(without)


def test_tied_answers_are_reported_with_the_figures_of_every_choice():
    # "cat" is one edit away from "bat" and from "rat".
    made = [
        {"prediction": "cat", "label": "bat", "dataset_name": "cbi"},
        {"prediction": "rat", "label": "rat", "dataset_name": "cbi"},
    ]
    (part,) = group(made, "made")
    ties = score(part).ties
    assert ties is not None
    assert [match.text for match in ties.matches] == ["cat"]
    assert ties.first_sorted["Accuracy"] == 1.0
    assert ties.bounds("Accuracy") == (0.5, 1.0)


def _without_published(name: str) -> None:
    if not (PUBLISHED / name).is_file():
        pytest.skip("the published predictions are not beside this repository")


@pytest.mark.parametrize(
    "name",
    [
        "cbi_q0_100.jsonl",
        "detection_made_up.jsonl",
        "ufc_2_100.jsonl",
        "ufc_all_040.jsonl",
        "watkins_q0_100.jsonl",
    ],
)
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_published_predictions_have_their_official_figures_in_every_format(name, suffix, tmp_path):
    _without_published(name)
    expected = json.loads((PUBLISHED / "official_metrics.json").read_text())[name]
    made = [json.loads(line) for line in (PUBLISHED / name).read_text(encoding="utf-8").splitlines()]
    path = rows.write(tmp_path / f"predictions{suffix}", made)
    found = {part.component: score(part).figures() for part in read_predictions(path)}
    assert found.keys() == expected.keys()
    for component, by_metric in expected.items():
        assert close(found[component], by_metric), component


def _repeated(made: list[dict], times: np.ndarray) -> list[dict]:
    return [row for row, count in zip(made, times, strict=True) for _ in range(int(count))]


@pytest.mark.parametrize("kind", ["classification", "detection"])
def test_resampled_figures_are_those_of_the_drawn_examples(kind):
    made = getattr(rows, kind)(examples=60)
    # Its label texts stay the same whatever is drawn, as each answer is matched within the whole set.
    (part,) = group(made, "made")
    scored = score(part)
    weights = np.random.default_rng(0).multinomial(60, np.full(60, 1 / 60), size=5).astype(np.float32)
    resampled = scored.resampled(weights)
    for number, times in enumerate(weights):
        if kind == "classification":
            order = np.repeat(np.arange(60), times.astype(int))
            expected = classification_figures(scored._truth[order], scored._answer[order])
            for metric, value in expected.items():
                assert resampled[metric][number] == pytest.approx(value, abs=1e-6), metric
        else:
            order = np.repeat(np.arange(60), times.astype(int))
            expected = detection_figures(scored._truth[order], scored._answer[order])
            for metric in ("F1", "Recall", "Precision"):
                assert resampled[metric][number] == pytest.approx(expected[metric], abs=1e-6), metric


def test_intervals_hold_the_figure_and_narrow_with_more_examples():
    widths = []
    for examples in (50, 800):
        (part,) = group(rows.classification(examples), "made")
        scored = score(part)
        low, high = interval(resample(scored)[0]["Accuracy"])
        assert low <= scored.figures()["Accuracy"] <= high
        widths.append(high - low)
    # Four times narrower with sixteen times the examples, give or take.
    assert 2.5 < widths[0] / widths[1] < 6.5


def test_interval_of_an_accuracy_is_the_binomial_one():
    made = [
        {
            "prediction": "owl" if i % 4 else "wolf",
            "label": "owl" if i < 399 else "wolf",
            "dataset_name": "cbi",
        }
        for i in range(400)
    ]
    (part,) = group(made, "made")
    low, high = interval(resample(score(part))[0]["Accuracy"])
    half = 1.96 * (0.75 * 0.25 / 400) ** 0.5
    assert high - low == pytest.approx(2 * half, rel=0.1)


def test_every_hostile_text_survives_every_format(tmp_path):
    made = [
        {"prediction": text, "label": text, "id": f"{i}", "dataset_name": "cbi"}
        for i, text in enumerate(rows.HOSTILE)
    ]
    for suffix in (".jsonl", ".csv", ".parquet"):
        (part,) = read_predictions(rows.write(tmp_path / f"hostile{suffix}", made))
        assert part.answers == list(rows.HOSTILE), suffix
        assert part.labels == list(rows.HOSTILE), suffix
        assert score(part).figures()["Accuracy"] == 1.0


def test_empty_answer_is_an_answer(tmp_path):
    made = [
        {"prediction": "", "label": "owl", "dataset_name": "cbi"},
        {"prediction": "wolf", "label": "wolf", "dataset_name": "cbi"},
    ]
    for suffix in (".jsonl", ".csv", ".parquet"):
        (part,) = read_predictions(rows.write(tmp_path / f"empty{suffix}", made))
        assert part.answers[0] == ""
        assert part.unanswered == 0


def test_parquet_of_other_writers_is_read(tmp_path):
    """Dictionaries, large strings, several row groups: what pandas, Polars and DuckDB write."""
    made = rows.classification(50)
    table = pa.Table.from_pylist(made)
    columns = {
        "prediction": table["prediction"].cast(pa.large_string()),
        "label": table["label"].dictionary_encode(),
        "dataset_name": table["dataset_name"].dictionary_encode(),
        "id": pa.array(range(50)),
    }
    pq.write_table(pa.table(columns), tmp_path / "other.parquet", row_group_size=7)
    (part,) = read_predictions(tmp_path / "other.parquet")
    assert part.labels == [row["label"] for row in made]
    assert part.ids == [str(number) for number in range(50)]
