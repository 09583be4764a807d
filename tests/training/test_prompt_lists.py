"""The data of SALMONN and LTU: prompts drawn from lists, recordings that follow each other, instructions."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from naturelm.cli import main
from naturelm.errors import NaturelmError
from naturelm.training.data import Stream, read_examples
from naturelm.training.data_settings import DataSettings
from naturelm.training.prompt_lists import read_prompt_lists
from tests.paths import REPO

LISTS = {"audiocaption": ["Describe the sound.", "What is heard?"], "QA": ["{}"], "slot": ["Which {} is it?"]}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for number, name in enumerate(("a", "b")):
        soundfile.write(tmp_path / f"{name}.wav", np.full(16_000, 0.1 * (number + 1), np.float32), 16_000)
    rows = [
        {"path": "a.wav", "text": "A tone.", "task": "audiocaption"},
        {"path": "a.wav", "text": "Yes.", "task": "QA", "Q": "Is it a tone?", "expand_wav": ["b.wav"]},
    ]
    (tmp_path / "salmonn.json").write_text(json.dumps({"annotation": rows}))
    (tmp_path / "prompts.json").write_text(json.dumps(LISTS))
    instructions = [
        {
            "instruction": "Name the sound.",
            "input": "",
            "audio_id": "a.wav",
            "output": "tone",
            "dataset": "made",
        },
        {"instruction": "Is it", "input": "this?", "audio_id": "b.wav", "output": "no", "task": "cla"},
    ]
    (tmp_path / "closed.json").write_text(json.dumps(instructions))
    return tmp_path


def stream(data: Path, *manifests: str, **values: Any) -> Stream:
    settings = DataSettings(
        manifests=tuple(str(data / name) for name in manifests),
        window_s=4.0,
        crop="start",
        pad_to_window=False,
        **values,
    )
    return Stream(read_examples(settings.manifests, settings), settings, 0)


def test_prompts_are_drawn_from_the_list_of_the_task_and_take_in_the_rows_own_text(data: Path) -> None:
    loaded = stream(data, "salmonn.json", prompt_lists=str(data / "prompts.json"))
    examples = [loaded.load(spec) for step in range(40) for spec in loaded.specs(step, 2)]
    drawn = Counter(prompt for example in examples for prompt, _ in example.questions)
    assert set(drawn) == {"Describe the sound.", "What is heard?", "Is it a tone?"}
    assert min(drawn.values()) > 8
    again = [loaded.load(spec) for step in range(40) for spec in loaded.specs(step, 2)]
    assert [example.questions for example in again] == [example.questions for example in examples]


def test_recordings_that_follow_are_joined_after_a_tenth_of_a_second_of_silence(data: Path) -> None:
    loaded = stream(data, "salmonn.json", prompt_lists=str(data / "prompts.json"))
    sounds = {
        example.task: example.waveform for example in (loaded.load(spec) for spec in loaded.specs(0, 2))
    }
    assert len(sounds["audiocaption"]) == 16_000
    joined = sounds["QA"]
    assert len(joined) == 16_000 + 1_600 + 16_000
    assert not joined[16_000:17_600].any()
    np.testing.assert_allclose([joined[8_000], joined[-8_000]], [0.1, 0.2], atol=1e-3)


def test_instructions_are_questions_and_half_of_the_closed_ones_have_a_prefix(data: Path) -> None:
    (data / "open.json").write_text((data / "closed.json").read_text())
    closed = str(data / "closed.json")
    loaded = stream(data, "closed.json", "open.json", prefix="Closed: ", prefix_manifests=(closed,))
    examples = [loaded.load(spec) for step in range(100) for spec in loaded.specs(step, 4)]
    prompts = Counter(prompt for example in examples for prompt, _ in example.questions)
    assert set(prompts) == {
        *("Name the sound.", "Closed: Name the sound."),
        *("Is it\nthis?", "Closed: Is it\nthis?"),
    }
    share = sum(count for prompt, count in prompts.items() if prompt.startswith("Closed: ")) / prompts.total()
    assert share == pytest.approx(0.25, abs=0.06)
    assert {example.task for example in examples} == {"made", "cla"}


def test_manifest_checks_and_converts_both_formats(data: Path) -> None:
    lists = ["--prompts", str(data / "prompts.json")]
    out = data / "out" / "salmonn.jsonl"
    done = CliRunner().invoke(main, ["manifest", str(data / "salmonn.json"), "--out", str(out), *lists])
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert rows[1]["Q"] == "Is it a tone?"
    assert rows[1]["expand_wav"] == ["../b.wav"]
    assert "prompt" not in rows[0]
    done = CliRunner().invoke(main, ["manifest", str(data / "closed.json")])
    assert done.exit_code == 0, done.output
    assert "2 questions, all rows are valid" in done.output
    without = CliRunner().invoke(main, ["manifest", str(data / "salmonn.json")])
    assert without.exit_code == 2
    assert "row 1: prompt is missing" in without.stderr
    packed = ["--to", "shards", "--out", str(data / "shards"), *lists]
    refused = CliRunner().invoke(main, ["manifest", str(data / "salmonn.json"), *packed])
    assert (refused.exit_code, len(refused.stderr.splitlines())) == (2, 1)
    assert "which shards do not hold" in refused.stderr


def test_task_without_a_list_and_recordings_that_are_missing_are_named(data: Path) -> None:
    rows = [
        {"path": "a.wav", "text": "x", "task": "asr"},
        {"path": "a.wav", "text": "x", "task": "QA", "Q": "y", "expand_wav": ["gone.wav"]},
        {"path": "a.wav", "text": "x", "task": "QA", "Q": "y", "expand_wav": "b.wav"},
    ]
    (data / "salmonn.json").write_text(json.dumps({"annotation": rows}))
    with pytest.raises(NaturelmError) as error:
        stream(data, "salmonn.json", prompt_lists=str(data / "prompts.json"))
    message = str(error.value)
    assert "row 1: has no prompt, and the lists have none for task 'asr'" in message
    assert "row 2: there is no file" in message
    assert "row 3: expand_wav is 'b.wav'; give a list of paths" in message


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[]", "holds no table"),
        ('{"a": []}', "task 'a' has no list"),
        ('{"a": [1]}', "task 'a'"),
        ("{", "JSON"),
    ],
)
def test_what_is_not_a_list_of_prompts_is_refused(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "prompts.json").write_text(text)
    with pytest.raises(NaturelmError, match=named):
        read_prompt_lists(tmp_path / "prompts.json")


def test_prefix_needs_manifests_that_are_trained_on(data: Path) -> None:
    with pytest.raises(ValueError, match=r"prefix_manifests names b.json, which is not among manifests"):
        DataSettings(manifests=("a.json",), prefix="x", prefix_manifests=("b.json",))
    with pytest.raises(ValueError, match="give both"):
        DataSettings(manifests=("a.json",), prefix="x")


def test_shipped_lists_can_be_read() -> None:
    lists = read_prompt_lists(REPO / "configs/train/salmonn-prompts.json")
    assert lists["QA"] == ("{}",)
