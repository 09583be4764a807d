"""Spellings of one label."""

from __future__ import annotations

import datetime as dt

import pytest

from naturelm.results.analysis import read_analysis
from naturelm.tables.query import open_tables
from naturelm.tables.spellings import label_key, scientific_queries
from tests.tables.make_tables import detection, recording, write_results


@pytest.mark.parametrize(
    "spelling", ["Tawny Owl", "tawny owl", " TAWNY   OWL. ", "Tawny\u00a0Owl", "Ｔawny Owl"]
)
def test_spellings_that_mean_the_same_have_one_key(spelling):
    assert label_key(spelling) == "tawny owl"


@pytest.mark.parametrize("nothing", ["None", "none", "NONE.", "No animals", "nothing", "", "  ", None])
def test_ways_of_saying_nothing_have_no_key(nothing):
    assert label_key(nothing) is None


def test_labels_lists_spellings_under_the_most_frequent_one(tmp_path):
    row = recording("a.wav", dt.datetime(2026, 5, 1, 20))
    spellings = ["owl", "Owl", "Owl", "None", "Wren", "wren"]
    found = [detection(row, 10.0 * number, label) for number, label in enumerate(spellings)]
    connection = open_tables(write_results(tmp_path, [row], found), locked=True)
    rows = connection.sql("SELECT label, label_key, name, detections FROM labels ORDER BY label").fetchall()
    assert rows == [
        ("Owl", "owl", "Owl", 2),
        ("Wren", "wren", "Wren", 1),
        ("owl", "owl", "Owl", 1),
        ("wren", "wren", "Wren", 1),
    ]
    assert connection.sql("SELECT label FROM detections ORDER BY start_s").fetchall() == [
        (s,) for s in spellings
    ]


def test_label_key_is_a_function_in_sql(tmp_path):
    connection = open_tables(write_results(tmp_path), locked=True)
    sql = "SELECT label_key('  ROBIN. '), label_key('None'), label_key(NULL)"
    assert connection.sql(sql).fetchall() == [("robin", None, None)]


def test_queries_that_ask_for_scientific_names_are_known_by_their_words(tmp_path):
    assert scientific_queries(read_analysis(write_results(tmp_path)).queries) == {"latin"}
    assert scientific_queries({}) == set()
