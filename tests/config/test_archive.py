"""Configuration: one YAML, checked, and the hash of what determines rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from naturelm.cli._settings import archive_config
from naturelm.config.archive import ArchiveConfig
from naturelm.config.loading import load_archive_config
from naturelm.errors import NaturelmError
from tests.paths import REPO


def test_documented_defaults_are_the_defaults():
    assert load_archive_config(REPO / "configs/archive.yaml") == ArchiveConfig()


def test_flag_wins_over_file_and_file_over_default(tmp_path):
    path = tmp_path / "archive.yaml"
    path.write_text("windows: {length_s: 5.0, hop_s: 2.5}\ngeneration: {num_beams: 2}\n")
    config = load_archive_config(path, {"windows": {"hop_s": 1.0, "length_s": None}})
    assert (config.windows.length_s, config.windows.hop_s) == (5.0, 1.0)
    assert config.generation.num_beams == 2
    assert config.generation.max_new_tokens == ArchiveConfig().generation.max_new_tokens


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("windows: {hop_s: 0}", "hop is 0 s"),
        ("windows: {length_s: -10}", "window is -10 s"),
        ("window: {length_s: 10}", "unknown setting window"),
        ("windows: {lenght_s: 10}", "unknown setting windows.lenght_s"),
        ("queries: []", "queries"),
        ("queries: [{id: a, prompt: '  '}]", "prompt with text"),
        ("queries: [{id: 'a b', prompt: x}]", "queries.0.id is 'a b'"),
        ("queries: [{id: a, prompt: x}, {id: a, prompt: y}]", "duplicate query id 'a'"),
        ("queries: [{id: a, prompt: x, kind: classification}]", "needs labels"),
        ("queries: [{id: a, prompt: x, kind: classification, labels: [Owl, Owl]}]", "duplicate label"),
        ("queries: [{id: a, prompt: x, labels: [Owl]}]", "labels belong to kind classification"),
        ("queries: [{id: a, prompt: x, kind: guess}]", "queries.0.kind is 'guess'"),
        ("job: {workers: -1}", "job.workers is -1"),
        ("model: {merging_alpha: 2}", "model.merging_alpha is 2"),
        ("windows: 10", "windows"),
        ("- a\n- b", "contains list"),
        ("a: [", "not valid YAML"),
    ],
)
def test_mistake_in_a_file_is_one_sentence_with_file_and_value(tmp_path, text, expected):
    path = tmp_path / "archive.yaml"
    path.write_text(text)
    with pytest.raises(NaturelmError) as error:
        load_archive_config(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert expected in message
    assert "\n" not in message


def test_missing_file_is_told(tmp_path):
    with pytest.raises(NaturelmError, match=r"none\.yaml: cannot read"):
        load_archive_config(tmp_path / "none.yaml")


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
    assert [load_archive_config(None, o).analysis_hash("r1") for o in same] == [base] * len(same)
    hashes = {load_archive_config(None, o).analysis_hash("r1") for o in other} | {
        ArchiveConfig().analysis_hash("r2")
    }
    assert len(hashes | {base}) == len(other) + 2


def test_model_is_known_by_its_weights_not_by_the_name_it_was_loaded_by():
    assert load_archive_config(None, {"model": {"name": "/a/copy"}}).analysis_hash(
        "r1"
    ) == ArchiveConfig().analysis_hash("r1")


CLOSED = 'queries: [{id: focal, prompt: "Which?", kind: classification, labels_file: lists/birds.%s}]'


def _with_list(tmp_path: Path, name: str, text: str) -> Path:
    (tmp_path / "lists").mkdir(exist_ok=True)
    (tmp_path / "lists" / name).write_text(text, encoding="utf-8")
    path = tmp_path / "archive.yaml"
    path.write_text(CLOSED % name.split(".")[1])
    return path


def test_labels_file_of_one_label_a_line_lies_beside_the_configuration(tmp_path):
    path = _with_list(tmp_path, "birds.txt", "\ufeff# of the valley\nTawny owl\n\n  Wren \nTawny owl\n")
    (query,) = load_archive_config(path).queries
    assert query.labels == ("Tawny owl", "Wren")
    assert query.labels_at("anywhere") == ("Tawny owl", "Wren")


def test_labels_file_with_stations_adds_to_the_labels_of_all_stations(tmp_path):
    path = _with_list(tmp_path, "birds.csv", 'Station,Label\n,Wren\nA,"Owl, tawny"\nB,Dipper\nA,Wren\n')
    (query,) = load_archive_config(path).queries
    assert query.labels_at("A") == ("Wren", "Owl, tawny")
    assert query.labels_at("B") == ("Wren", "Dipper")
    assert query.labels_at("C") == ("Wren",)
    other = _with_list(tmp_path, "birds.csv", "station,label\n,Wren\nA,Owl\n")
    assert load_archive_config(path).analysis_hash("") == load_archive_config(other).analysis_hash("")
    hashed = load_archive_config(path).analysis_hash("")
    _with_list(tmp_path, "birds.csv", "station,label\n,Wren\n")
    assert load_archive_config(path).analysis_hash("") != hashed, (
        "the labels themselves belong to the analysis"
    )


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("birds.txt", "\n# nothing\n", "contains no labels"),
        ("birds.csv", "station,label\nA,\n", "line 2 has no label"),
    ],
)
def test_unusable_labels_file_is_refused(tmp_path, name, text, expected):
    with pytest.raises(NaturelmError, match=expected):
        load_archive_config(_with_list(tmp_path, name, text))


def test_missing_labels_file_and_a_list_given_twice_are_told(tmp_path):
    path = tmp_path / "archive.yaml"
    path.write_text(CLOSED % "txt")
    with pytest.raises(NaturelmError, match=r"birds\.txt: cannot read the labels"):
        load_archive_config(path)
    path.write_text("queries: [{id: a, prompt: x, kind: classification, labels: [Owl], labels_file: b.txt}]")
    with pytest.raises(NaturelmError, match="labels and labels_file"):
        load_archive_config(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("windows: {hop_s: 5}\nwindows: {hop_s: 6}\n", "duplicate key 'windows'"),
        ("windows:\n  hop_s: 5\n  hop_s: 6\n", "line 3: not valid YAML (duplicate key 'hop_s')"),
        ("windows: {hop_s: .nan}\n", "windows.hop_s is nan: input should be a finite number"),
        (f"windows: {{hop_s: {'9' * 6000}}}\n", "not valid YAML"),
        (f"windows: {'[' * 5000}{']' * 5000}\n", "not valid YAML"),
        ("model: {name: &a [x, x, x, x]}\nqueries: [*a, *a]\n", "model.name is"),
        ('queries: [{id: a, prompt: "\\uD800"}]\n', "surrogate pair"),
    ],
)
def test_hostile_yaml_is_one_short_sentence(tmp_path, text, expected):
    path = tmp_path / "night.yaml"
    path.write_text(text)
    with pytest.raises(NaturelmError) as caught:
        load_archive_config(path)
    message = str(caught.value)
    assert expected in message
    assert str(path) in message
    assert len(message) < len(str(path)) + 400


def test_empty_file_means_the_defaults(tmp_path):
    path = tmp_path / "night.yaml"
    path.write_text("# nothing yet\n")
    assert load_archive_config(path) == load_archive_config()


def test_parts_of_a_model_are_settings_that_determine_the_rows():
    config = archive_config(config=None, parts=("beats=beats.pt", "whisper=w"))
    assert config.model.part_files == {"beats": "beats.pt", "whisper": "w"}
    assert load_archive_config(None, {"model": {"parts": {"whisper": "w", "beats": "beats.pt"}}}) == config
    assert isinstance(hash(config), int)  # workers keep a decoder for each configuration
    assert ArchiveConfig.model_validate(config.model_dump(mode="json")) == config
    plain = archive_config(config=None)
    assert plain.analysis("r")["model"].keys() == config.analysis("r")["model"].keys() - {"parts"}


@pytest.mark.parametrize(
    ("parts", "named"), [(("beats",), "'beats': give the part's name"), (("a=1", "a=2"), "a appears twice")]
)
def test_part_without_a_place_or_given_twice_is_refused(parts: tuple[str, ...], named: str):
    with pytest.raises(NaturelmError, match=f"--part {named}"):
        archive_config(config=None, parts=parts)


def test_sampling_is_part_of_the_analysis_only_where_it_is_not_the_default():
    greedy = load_archive_config(None)
    assert greedy.analysis("r")["generation"] == {"max_new_tokens": 64, "num_beams": 1}
    drawn = load_archive_config(None, {"generation": {"do_sample": True, "top_p": 0.95}})
    assert drawn.analysis("r")["generation"] == {
        "max_new_tokens": 64,
        "num_beams": 1,
        "do_sample": True,
        "top_p": 0.95,
    }
    with pytest.raises(NaturelmError, match="do_sample has one beam, not 4"):
        load_archive_config(None, {"generation": {"do_sample": True, "num_beams": 4}})
