"""Exploring and reviewing, without a browser."""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from naturelm.app.explore import MAX_ROWS, ORDERS, Filters, Results
from naturelm.errors import NaturelmError
from naturelm.results.layout import REVIEWS
from naturelm.results.schemas import REVIEWS_SCHEMA
from naturelm.tables.reviews import (
    Review,
    append_review,
    precision_interval,
    read_reviews,
)
from tests.tables.make_tables import detection, recording, write_results

SIX_PM = dt.datetime(2026, 5, 14, 18, 0)


def review(label: str = "Owl", start_s: float = 0.0, **fields: Any) -> Review:
    values: dict[str, Any] = {"decision": "agree", "reviewer": "me"} | fields
    return Review("id", start_s, start_s + 10, "species", label, **values)


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """Four hours at two stations, an owl every minute; a frog now and then."""
    recordings, detections = [], []
    for number in range(4):
        row = recording(f"{number}.wav", SIX_PM + dt.timedelta(hours=3 * number), station="AB"[number % 2])
        recordings.append(row)
        detections += [detection(row, 10.0 * i, "Owl", score=(number * 6 + i) / 24) for i in range(6)]
    detections.append(detection(recordings[0], 0.0, "owl", score=0.99, query="again"))
    detections.append(detection(recordings[1], 0.0, "Frog", score=0.5))
    return Results(write_results(tmp_path / "results", recordings, detections))


# --- the reviews table


@pytest.mark.parametrize("text", ["a\x1b[31mb", "a\nb", "\x00", "\x85", "\ud800", ["a"], 7])
@pytest.mark.parametrize("what", ["new_label", "reviewer"])
def test_control_characters_half_surrogates_and_what_is_no_text_are_refused(what: str, text: Any) -> None:
    with pytest.raises(NaturelmError, match=what):
        review(**{"decision": "relabel", "new_label": "Toad"} | {what: text})


@pytest.mark.parametrize("text", ["湿地の鳥", "Zoë", "🦉"])
def test_names_in_any_script_are_kept(tmp_path: Path, text: str) -> None:
    append_review(tmp_path, review(reviewer=text))
    assert read_reviews(tmp_path)["reviewer"].to_pylist() == [text]


@pytest.mark.parametrize("text", [["Owl"], {"a": 1}, 3.5, "x\x07", "\udfff"])
def test_a_label_that_is_no_plain_text_is_a_sentence_on_the_page(results: Results, text: Any) -> None:
    pytest.importorskip("gradio")
    from naturelm.app.explore_tab import decide

    rows = results.search(Filters()).rows
    shown = decide(results, "relabel", rows, 0, "me", text)
    assert "text" in str(shown[3])
    assert read_reviews(results.directory).num_rows == 0


def test_each_decision_is_one_row_with_time_and_reviewer(tmp_path: Path) -> None:
    before = dt.datetime.now(dt.UTC)
    append_review(tmp_path, review(reviewer="Ada"))
    append_review(tmp_path, review(decision="relabel", new_label="Toad"))
    table = read_reviews(tmp_path)
    assert table.schema == REVIEWS_SCHEMA
    assert table["decision"].to_pylist() == ["agree", "relabel"]
    assert table["new_label"].to_pylist() == [None, "Toad"]
    assert table["reviewer"].to_pylist() == ["Ada", "me"]
    assert all(before <= time <= dt.datetime.now(dt.UTC) for time in table["reviewed_time"].to_pylist())


def test_reviewers_may_decide_at_the_same_time(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: append_review(tmp_path, review(start_s=float(number))), range(40)))
    assert sorted(read_reviews(tmp_path)["start_s"].to_pylist()) == [float(number) for number in range(40)]
    assert {path.suffix for path in (tmp_path / REVIEWS).iterdir()} == {".parquet"}


@pytest.mark.parametrize(
    "fields",
    [
        {"decision": "maybe"},
        {"decision": "relabel"},
        {"decision": "relabel", "new_label": " "},
        {"decision": "agree", "new_label": "Toad"},
        {"reviewer": "x" * 201},
        {"decision": "relabel", "new_label": "x" * 201},
    ],
)
def test_decisions_that_make_no_sense_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(NaturelmError):
        review(**fields)


def test_a_directory_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / REVIEWS).touch()
    with pytest.raises(NaturelmError, match="cannot be written"):
        append_review(tmp_path, review())


def test_precision_has_wilsons_interval() -> None:
    """Published example values for 95 %: 8 of 10 gives 0.490 to 0.943 (Wilson, without continuity correction)."""
    assert precision_interval(8, 10) == pytest.approx((0.490, 0.943), abs=0.001)
    assert precision_interval(0, 5)[0] == 0.0
    assert precision_interval(5, 5)[1] == 1.0


# --- searching


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (Filters(), 26),
        (Filters(stations=("B",)), 13),
        (Filters(labels=("Owl",)), 25),
        (Filters(labels=("Frog", "Owl")), 26),
        (Filters(first_date=dt.date(2026, 5, 15)), 12),
        (Filters(last_date=dt.date(2026, 5, 14)), 14),
        (Filters(first_hour=21, last_hour=21), 7),
        (Filters(first_hour=22, last_hour=4), 12),
        (Filters(min_score=0.9), 3),
        (Filters(max_score=0.1), 3),
        (Filters(stations=("A",), labels=("Frog",)), 0),
    ],
)
def test_filters_choose_detections(filters: Filters, found: int, results: Results) -> None:
    assert results.search(filters).total == len(results.search(filters).rows) == found


def test_lists_come_in_the_order_asked_for(results: Results) -> None:
    def scores(order: str) -> list[float]:
        return [row["score"] for row in results.search(Filters(labels=("Owl",), order=order)).rows]

    assert scores("best scores first") == sorted(scores("best scores first"), reverse=True)
    assert scores("lowest scores first") == sorted(scores("best scores first"))
    times = [row["start_local"] for row in results.search(Filters(order="in order of time")).rows]
    assert times == sorted(times)
    assert scores("at random") == scores("at random")  # a reload does not lose one's place
    assert scores("at random") not in (scores("best scores first"), scores("in order of time"))
    assert len(ORDERS) == 4


def test_long_lists_are_cut_and_counted(tmp_path: Path) -> None:
    row = recording("a.wav", SIX_PM, duration_s=10_000.0)
    many = [detection(row, 10.0 * i, "Owl") for i in range(MAX_ROWS + 1)]
    found = Results(write_results(tmp_path, [row], many)).search(Filters())
    assert (len(found.rows), found.total) == (MAX_ROWS, MAX_ROWS + 1)


def test_refresh_shows_what_was_committed_since(tmp_path: Path) -> None:
    results = Results(write_results(tmp_path))
    row = recording("a.wav", SIX_PM)
    write_results(tmp_path, [row], [detection(row, 0.0, "Owl")])
    results.refresh()
    assert results.search(Filters()).total == 1


# --- reviewing


def files(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in (directory / "detections").rglob("*.parquet")}


def test_reviews_never_change_detections(results: Results) -> None:
    before = files(results.directory)
    results.review(results.search(Filters()).rows[0], "disagree", "me")
    assert files(results.directory) == before
    [review_file] = (results.directory / REVIEWS).iterdir()
    assert pq.read_metadata(review_file).num_rows == 1


def test_the_newest_decision_on_a_detection_counts(results: Results) -> None:
    first, second, third = results.search(Filters(labels=("Owl",), order="lowest scores first")).rows[:3]
    results.review(first, "agree", "me")
    results.review(first, "disagree", "you")
    results.review(second, "agree", "me")
    results.review(third, "relabel", "me", "Dove")
    [owl] = results.precisions()
    assert (owl.label, owl.reviewed, owl.agreed, owl.precision) == ("Owl", 3, 1, pytest.approx(1 / 3))
    reviewed = results.search(Filters(labels=("Owl",), order="lowest scores first")).rows[:3]
    assert [(row["decision"], row["new_label"]) for row in reviewed] == [
        ("disagree", None),
        ("agree", None),
        ("relabel", "Dove"),
    ]
    assert results.search(Filters(unreviewed=True)).total == 23


def test_spellings_of_a_label_share_a_precision(results: Results) -> None:
    best = results.search(Filters(labels=("Owl",))).rows[:2]
    assert {row["spelling"] for row in best} == {"owl", "Owl"}
    for row in best:
        results.review(row, "agree", "me")
    assert [(row.label, row.reviewed) for row in results.precisions()] == [("Owl", 2)]


def test_two_answers_about_one_window_are_reviewed_apart(results: Results) -> None:
    [again] = [row for row in results.search(Filters()).rows if row["query"] == "again"]
    results.review(again, "disagree", "me")
    decided = [row for row in results.search(Filters()).rows if row["decision"]]
    assert [row["query"] for row in decided] == ["again"]


def test_a_missing_original_has_no_player(results: Results) -> None:
    assert results.player(results.search(Filters()).rows[0]) is None


def test_many_visitors_may_search_at_once(results: Results) -> None:
    with ThreadPoolExecutor(8) as pool:
        totals = list(pool.map(lambda _: results.search(Filters()).total, range(24)))
    assert totals == [26] * 24
