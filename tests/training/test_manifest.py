"""Manifests: what is read, what is refused and how, and what `naturelm manifest` writes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from click.testing import CliRunner

from naturelm.cli import main
from naturelm.errors import NaturelmError
from naturelm.labels import parse_labels
from naturelm.storage import location, write_whole
from naturelm.training.labelled import label_name
from naturelm.training.manifest import read_manifest, write_manifest
from naturelm.training.mixing import split_options
from naturelm.training.pieces import piece
from tests.object_store import failing

ROW = {"path": "a.wav", "prompt": "What calls?", "text": "Owl", "task": "common-naming", "id": "1"}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, np.zeros(1600, np.float32), 16_000)
    return tmp_path


def jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def problems(path: Path) -> list[str]:
    with pytest.raises(NaturelmError) as caught:
        read_manifest(path)
    return str(caught.value).splitlines()


def call(*arguments: object):
    return CliRunner().invoke(main, ["manifest", *(str(a) for a in arguments)])


def rows_of(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", ["m.jsonl", "m.json", "m.parquet"])
def test_all_formats_hold_the_same(here, name):
    rows = [ROW, ROW | {"path": "b.wav", "text": "Frog, Owl", "id": "2"}]
    write_manifest(here / name, rows)
    first, second = read_manifest(here / name)
    assert (first.path, first.text, first.id) == (str(here / "a.wav"), "Owl", "1")
    assert (second.text, second.prompt, second.task) == ("Frog, Owl", "What calls?", "common-naming")


@pytest.mark.parametrize("name", ["m.jsonl", "m.json", "m.parquet"])
def test_manifest_in_an_object_store_names_recordings_there_and_anywhere(here, bucket, name):
    rows = [
        ROW | {"path": path, "id": path} for path in ("../a.wav", str(here / "b.wav"), f"{bucket}/deep/c.wav")
    ]
    write_manifest(here / name, rows)
    write_whole(location(f"{bucket}/tables/{name}"), (here / name).read_bytes())
    sound = (here / "a.wav").read_bytes()
    for key in ("a.wav", "deep/c.wav"):
        write_whole(location(f"{bucket}/{key}"), sound)
    examples = read_manifest(location(f"{bucket}/tables/{name}"))
    paths = [f"{bucket}/a.wav", str(here / "b.wav"), f"{bucket}/deep/c.wav"]
    assert [example.path for example in examples] == paths
    assert [len(piece(example.path, 0.05, 0.0)) for example in examples] == [800] * 3


def test_recording_that_no_store_contains_is_reported(here, bucket):
    rows = [ROW | {"path": path, "id": path} for path in (f"{bucket}/d.wav", "ftp://there/a.wav")]
    assert problems(jsonl(here / "m.jsonl", *rows))[1:] == [
        f"  row 1: there is no file {bucket}/d.wav",
        "  row 2: ftp://there/a.wav: ftp:// is not read here; give a path, s3:// or gs://",
    ]


def test_store_that_refuses_is_reported_once_with_the_row(here, bucket, object_store, point_at):
    rows = [ROW | {"path": path, "id": path} for path in (f"{bucket}/a.wav", f"{bucket}/b.wav")]
    with failing(object_store, 403) as endpoint:
        point_at(endpoint)
        (sentence,) = problems(jsonl(here / "m.jsonl", *rows))
    assert sentence == (
        f"{here / 'm.jsonl'}, row 1: {bucket}/a.wav cannot be found (access denied); "
        "check the URL and your credentials"
    )


def test_published_json_and_files_column_are_read(here):
    without_path = {key: value for key, value in ROW.items() if key != "path"}
    (here / "m.json").write_text(json.dumps({"annotation": [without_path | {"files": ["b.wav"]}]}))
    assert [example.path for example in read_manifest(here / "m.json")] == [str(here / "b.wav")]


def test_parquet_with_files_as_a_list_is_read(here):
    pq.write_table(
        pa.table({**{k: [v] for k, v in ROW.items() if k != "path"}, "files": [["a.wav"]]}),
        here / "m.parquet",
    )
    assert [example.path for example in read_manifest(here / "m.parquet")] == [str(here / "a.wav")]


def test_a_row_without_id_is_called_by_its_number(here):
    without_id = {key: value for key, value in ROW.items() if key != "id"}
    assert [e.id for e in read_manifest(jsonl(here / "m.jsonl", without_id, without_id))] == ["m-1", "m-2"]


def test_absolute_paths_stay(here, tmp_path_factory):
    elsewhere = jsonl(tmp_path_factory.mktemp("other") / "m.jsonl", ROW | {"path": str(here / "a.wav")})
    assert read_manifest(elsewhere)[0].path == str(here / "a.wav")


def test_all_problems_are_reported_at_once_with_their_rows(here):
    path = jsonl(
        here / "m.jsonl",
        ROW,
        ROW | {"path": "missing.wav", "id": "2"},
        ROW | {"text": "  ", "id": "3"},
        ROW | {"lable": "Owl", "id": "4"},
        ROW,
        "Owl",
        ROW | {"files": ["a.wav", "b.wav"], "id": "7"},
        {"path": "a.wav", "text": 3},
    )
    path.write_text(path.read_text() + "{broken\n")
    first, *lines = problems(path)
    assert first == f"{path}: 10 problems; fix the rows:"
    assert [line.strip() for line in lines[:6]] == [
        f"row 2: there is no file {here / 'missing.wav'}",
        "row 3: text is empty",
        "row 4: unknown column 'lable'; known are path, files, text, prompt, task, id, start_s, end_s, Q, "
        "expand_wav",
        "row 5: id '1' is already used in row 1",
        'row 6: is "Owl", not an object with columns',
        "row 7: files contains 2 paths; a question is about one recording, so give one in a list",
    ]
    assert [line.strip() for line in lines[6:9]] == [
        "row 8: text is 3, not text",
        "row 8: prompt is missing",
        "row 8: task is missing",
    ]
    assert lines[9].startswith("  row 9: is not valid JSON")


def test_many_problems_are_counted_not_listed(here):
    rows = [ROW | {"text": "", "id": str(number)} for number in range(500)]
    first, *lines = problems(jsonl(here / "m.jsonl", *rows))
    assert "500 problems" in first
    assert len(lines) == 21
    assert lines[-1] == "  and 480 more"


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("m.jsonl", b"", "contains no rows"),
        ("m.csv", b"path,text\n", "a manifest ends in .jsonl, .json, .parquet"),
        ("m.json", b"{}", 'contains no {"annotation": [...]}'),
        ("m.json", b"{", "not valid JSON"),
        ("m.parquet", b"PAR", "not a Parquet file"),
        ("m.jsonl", b'{"text": "\xff"}\n', "is not UTF-8 text"),
    ],
)
def test_what_is_not_a_manifest_is_refused(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content)
    assert expected in problems(tmp_path / name)[0]


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ({"start_s": 1.0}, "end_s is None; give start_s and end_s as numbers"),
        ({"start_s": "1", "end_s": 2}, "start_s is '1'"),
        ({"start_s": 2, "end_s": 2}, "start_s is 2 and end_s 2; give a part of the recording"),
        ({"start_s": -1, "end_s": 2}, "start_s is -1 and end_s 2"),
        ({"start_s": 0, "end_s": float("nan")}, "end_s is nan"),
    ],
)
def test_part_of_a_recording_has_two_times_in_order(here, span, expected):
    row = {"path": "owl.wav", "text": "Owl", "prompt": "?", "task": "t"} | span
    (here / "m.jsonl").write_text(json.dumps(row) + "\n")
    assert any(expected in line for line in problems(here / "m.jsonl"))


def test_a_missing_manifest_is_refused(tmp_path):
    assert "cannot read the manifest (No such file" in problems(tmp_path / "m.jsonl")[0]


# -- naturelm manifest -----------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for label in ("Owl", "Tree_frog", "Wolf", "None"):
        (tmp_path / "sounds" / label).mkdir(parents=True)
        for number in range(3):
            soundfile.write(tmp_path / "sounds" / label / f"{number}.wav", np.zeros(160, np.float32), 16_000)
    (tmp_path / "sounds" / "Owl" / "notes.txt").write_text("no recording")
    return tmp_path / "sounds"


def table(path: Path, *rows: dict[str, str]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_labelled_folder_becomes_questions_that_its_names_answer(folders, tmp_path):
    out = tmp_path / "m.jsonl"
    result = call(folders, "--out", out)
    assert result.exit_code == 0, result.output
    assert (
        len(read_manifest(out)) == 9 * 4 + 3 * 2
    )  # without any label there are only the detection questions
    by_task: dict[str, list[dict[str, str]]] = {}
    for row in rows_of(out):
        by_task.setdefault(row["task"], []).append(row)
    assert {row["path"]: row["text"] for row in by_task["common-naming"]}[
        "sounds/Tree_frog/1.wav"
    ] == "Tree frog"
    openly = {row["path"]: row["text"] for row in by_task["common-multiple-detection"]}
    assert openly["sounds/None/0.wav"] == "None"
    assert openly["sounds/Owl/0.wav"] == "Owl"


def test_closed_questions_hold_their_answer_or_say_none(folders, tmp_path):
    out = tmp_path / "m.jsonl"
    for none_share, expected in ((0, {False}), (1, {True})):
        assert call(folders, "--out", out, "--none-share", none_share, "--options", 3).exit_code == 0
        closed = [
            row for row in rows_of(out) if row["task"].endswith("random") and "/None/" not in row["path"]
        ]
        assert len(closed) == 18
        for row in closed:
            *offered, last = row["prompt"].split("recording? ")[-1].split(", ")
            assert last == "None."
            assert len(offered) == (3 if none_share == 0 else 2)
            assert row["text"] == "None" or row["text"] in offered
        assert {row["text"] == "None" for row in closed} == expected


def test_options_of_detection_can_be_read_from_the_prompt(folders, tmp_path):
    call(folders, "--out", tmp_path / "m.jsonl", "--ask", "detection-options")
    for row in rows_of(tmp_path / "m.jsonl"):
        split = split_options(row["prompt"])
        assert split is not None
        assert {label.name for label in parse_labels(row["text"])} <= set(split[1])
        assert set(split[1]) <= {"Owl", "Tree frog", "Wolf", "None."}


def test_the_seed_decides_about_options(folders, tmp_path):
    texts = []
    for seed in (0, 0, 1):
        call(folders, "--out", tmp_path / "m.jsonl", "--seed", seed)
        texts.append((tmp_path / "m.jsonl").read_text())
    assert texts[0] == texts[1] != texts[2]


def test_a_table_with_more_columns_answers_more_kinds(tmp_path):
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio" / "x.flac", np.zeros(160, np.float32), 16_000)
    row = {
        "filename": "x.flac",
        "common_name": "Barn Owl; Tawny Owl",
        "scientific_name": "Tyto alba; Strix aluco",
    }
    more = {"life_stage": "adult", "call_type": "hoot", "caption": "Two owls call.", "rating": "5"}
    result = call(table(tmp_path / "t.csv", row | more), "--out", tmp_path / "m.jsonl")
    assert result.exit_code == 0, result.output
    answers = {row["prompt"]: row["text"] for row in rows_of(tmp_path / "m.jsonl")}
    assert answers["What are the common names for the species in the audio, if any?"] == "Barn Owl, Tawny Owl"
    assert (
        answers["What are the scientific names for the species in the audio, if any?"]
        == "Strix aluco, Tyto alba"
    )
    assert answers["Caption the audio, using the common name for any animal species."] == "Two owls call."
    assert answers["What is the life stage of the focal species in the audio?"] == "adult"
    assert answers["What is the call type of the focal species in the audio?"] == "hoot"
    assert not any("focal species in the audio? Answer:" in prompt for prompt in answers)  # which of the two?


@pytest.mark.parametrize(
    ("written", "label"),
    [
        ("dog", "Dog"),
        ("crying_baby", "Crying baby"),
        ("Green Treefrog", "Green Treefrog"),
        ("mEagle2", "mEagle2"),
        ("turdus merula", "Turdus merula"),
        ("étourneau", "Étourneau"),
        ("湿地", "湿地"),
    ],
)
def test_labels_are_spelled_by_one_rule(written, label):
    assert label_name(written) == label


@pytest.mark.parametrize("call_type", ["call", "Song"])
def test_call_and_song_are_questioned_as_the_released_model_was_trained(tmp_path, call_type):
    soundfile.write(tmp_path / "x.flac", np.zeros(160, np.float32), 16_000)
    row = {"filename": "x.flac", "label": "owl", "call_type": call_type}
    assert call(table(tmp_path / "t.csv", row), "--out", tmp_path / "m.jsonl").exit_code == 0
    answers = {row["prompt"]: row["text"] for row in rows_of(tmp_path / "m.jsonl")}
    prompt = (
        "What type of vocalization is heard from the focal species in the audio? Answer with either 'call' or "
        "'song'."
    )
    assert answers[prompt] == call_type
    assert answers["What is the common name for the focal species in the audio? Answer:"] == "Owl"


def test_rows_about_one_recording_are_united_and_where_filters(here):
    path = table(
        here / "t.csv",
        {"file": "a.wav", "label": "Owl", "fold": "1"},
        {"file": "a.wav", "label": "Frog", "fold": "1"},
        {"file": "b.wav", "label": "Wolf", "fold": "2"},
    )
    result = call(path, "--out", here / "m.jsonl", "--where", "fold=1,3", "--ask", "detection")
    assert result.exit_code == 0, result.output
    assert [(row["path"], row["text"]) for row in rows_of(here / "m.jsonl")] == [("a.wav", "Frog, Owl")]


def test_problems_of_a_table_are_reported_at_once(here):
    path = table(
        here / "t.csv",
        {"file": "a.wav", "label": ""},
        {"file": "missing.wav", "label": "Owl"},
        {"file": "", "label": "Owl"},
    )
    result = call(path, "--out", here / "m.jsonl")
    assert result.exit_code == 2
    assert "3 problems" in result.output
    assert "row 1: label is empty; write None where there is nothing to name" in result.output
    assert "row 2: there is no file" in result.output
    assert "row 3: file is empty" in result.output
    assert not (here / "m.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["t.csv"], "--out is missing"),
        (["nowhere", "--out", "m.jsonl"], "nowhere: cannot be read (No such file or directory)"),
        (["t.csv", "--out", "m.txt"], "a manifest ends in .jsonl, .json, .parquet"),
        (["t.csv", "--out", "m.jsonl", "--where", "fold"], "give COLUMN=VALUE"),
        (["t.csv", "--out", "m.jsonl", "--where", "fold=1"], "has no column 'fold' for --where"),
        (["t.csv", "--out", "m.jsonl", "--where", "label=Cat"], "no row matches; check --where"),
        (["t.csv", "--out", "m.jsonl", "--ask", "caption"], "no question of the kinds caption can be made"),
        (["empty", "--out", "m.jsonl"], "no folder in it contains a recording"),
        (["bare.csv", "--out", "m.jsonl"], "needs a column for the file"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(here, monkeypatch, arguments, expected):
    monkeypatch.chdir(here)
    Path("empty").mkdir()
    table(Path("t.csv"), {"file": "a.wav", "label": "Owl"})
    table(Path("bare.csv"), {"name": "a.wav"})
    result = call(*arguments)
    assert result.exit_code == 2
    assert expected in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_a_manifest_is_checked_and_written_in_another_format(folders, tmp_path):
    (tmp_path / "far").mkdir()
    call(folders, "--out", tmp_path / "m.jsonl")
    assert call(tmp_path / "m.jsonl", "--out", tmp_path / "far" / "m.parquet").exit_code == 0
    result = call(tmp_path / "far" / "m.parquet")
    assert result.exit_code == 0
    assert result.output.endswith("m.parquet: 42 questions, all rows are valid\n")
    (folders / "Owl" / "0.wav").unlink()
    result = call(tmp_path / "m.jsonl")
    assert result.exit_code == 2
    assert "4 problems" in result.output
