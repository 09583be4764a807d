"""Reading labels from answers."""

from __future__ import annotations

import math

import pytest

from naturelm.labels import normal_form, parse_labels, rounded, span_score


def names(text: str) -> list[str]:
    return [label.name for label in parse_labels(text)]


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("Green Treefrog", ["Green Treefrog"]),
        ("Green Treefrog, American Bullfrog", ["Green Treefrog", "American Bullfrog"]),
        ("Green  Treefrog;\nBullfrog.", ["Green Treefrog", "Bullfrog"]),
        ("Dog, dog, DOG", ["Dog"]),
        ("#0.00s - 10.00s#: Green Treefrog\n", ["Green Treefrog"]),
        ("#0.00s - 10.00s#: Wren\n#10.00s - 20.00s#: Owl", ["Wren", "Owl"]),
        ("Mniotilta varia", ["Mniotilta varia"]),
        ("Nonesuch bird", ["Nonesuch bird"]),
    ],
)
def test_labels_are_read_in_order_and_once(text, labels):
    assert names(text) == labels


@pytest.mark.parametrize(
    "text", ["None", "none.", " NONE ", "", "  ", "No animals", "None, None", ",;", "N/A"]
)
def test_nothing_is_no_label(text):
    assert names(text) == []


def test_label_knows_where_it_stands():
    text = "#0.00s - 10.00s#: Wren,  Tawny owl."
    assert [text[label.start : label.end] for label in parse_labels(text)] == ["Wren", "Tawny owl"]


def test_score_of_a_label_is_the_mean_probability_of_its_own_tokens():
    # "Wren, Tawny owl" as tokens: Wr|en|,| Tawny| owl
    scores, ends = [0.9, 0.4, 0.99, 0.5, 0.8], [2, 4, 5, 11, 15]
    wren, owl = parse_labels("Wren, Tawny owl")
    assert span_score(scores, ends, wren.start, wren.end) == pytest.approx(math.sqrt(0.9 * 0.4))
    assert span_score(scores, ends, owl.start, owl.end) == pytest.approx(math.sqrt(0.5 * 0.8))


def test_score_of_a_part_without_tokens_is_unknown():
    assert span_score([], [], 0, 4) is None


def test_normal_form_folds_case_width_and_spaces():
    assert normal_form("  Ｇreen   TREEFROG. ") == "green treefrog"


def test_scores_are_stored_with_four_decimals():
    assert rounded(0.123456) == 0.1235
