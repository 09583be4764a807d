"""Configuration: one YAML, checked, and the hash of what determines rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from naturelm.config import ArchiveConfig, load
from naturelm.errors import NaturelmError

REPO = Path(__file__).parents[1]


def test_documented_defaults_are_the_defaults():
    assert load(REPO / "configs/archive.yaml") == ArchiveConfig()


def test_flag_wins_over_file_and_file_over_default(tmp_path):
    path = tmp_path / "archive.yaml"
    path.write_text("windows: {length_s: 5.0, hop_s: 2.5}\ngeneration: {num_beams: 2}\n")
    config = load(path, {"windows": {"hop_s": 1.0, "length_s": None}})
    assert (config.windows.length_s, config.windows.hop_s) == (5.0, 1.0)
    assert config.generation.num_beams == 2
    assert config.generation.max_new_tokens == ArchiveConfig().generation.max_new_tokens


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("windows: {hop_s: 0}", "hop is 0 s"),
        ("windows: {length_s: -10}", "window is -10 s"),
        ("window: {length_s: 10}", "unknown setting window"),
        ("windows: {lenght_s: 10}", "unknown setting windows.lenght_s"),
        ("queries: []", "queries"),
        ("queries: [{id: a, prompt: '  '}]", "prompt with text"),
        ("queries: [{id: 'a b', prompt: x}]", "queries.0.id is 'a b'"),
        ("queries: [{id: a, prompt: x}, {id: a, prompt: y}]", "'a' stands twice"),
        ("queries: [{id: a, prompt: x, kind: classification}]", "needs labels"),
        ("queries: [{id: a, prompt: x, kind: classification, labels: [Owl, Owl]}]", "stands twice"),
        ("queries: [{id: a, prompt: x, labels: [Owl]}]", "labels belong to kind classification"),
        ("queries: [{id: a, prompt: x, kind: guess}]", "queries.0.kind is 'guess'"),
        ("job: {workers: -1}", "job.workers is -1"),
        ("model: {merging_alpha: 2}", "model.merging_alpha is 2"),
        ("windows: 10", "windows"),
        ("- a\n- b", "holds list"),
        ("a: [", "not valid YAML"),
    ],
)
def test_mistake_in_a_file_is_one_sentence_with_file_and_value(tmp_path, text, told):
    path = tmp_path / "archive.yaml"
    path.write_text(text)
    with pytest.raises(NaturelmError) as error:
        load(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert told in message
    assert "\n" not in message


def test_missing_file_is_told(tmp_path):
    with pytest.raises(NaturelmError, match=r"none\.yaml: cannot read"):
        load(tmp_path / "none.yaml")


def test_hash_covers_what_changes_rows_and_nothing_else():
    base = ArchiveConfig().analysis_hash("r1")
    same = [
        {"job": {"workers": 3, "segment_minutes": 5.0, "batch_size": 7}},
        {"audio": {"decode_timeout_s": 5.0}},
    ]
    other = [
        {"windows": {"hop_s": 5.0}},
        {"audio": {"channel": 0}},
        {"generation": {"num_beams": 2}},
        {"model": {"merging_alpha": 0.5}},
        {"queries": [{"id": "species", "prompt": "Which species?"}]},
    ]
    assert [load(None, o).analysis_hash("r1") for o in same] == [base] * len(same)
    hashes = {load(None, o).analysis_hash("r1") for o in other} | {ArchiveConfig().analysis_hash("r2")}
    assert len(hashes | {base}) == len(other) + 2


def test_model_is_known_by_its_weights_not_by_the_name_it_was_loaded_by():
    assert load(None, {"model": {"name": "/a/copy"}}).analysis_hash("r1") == ArchiveConfig().analysis_hash(
        "r1"
    )
