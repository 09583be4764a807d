"""What `naturelm process` prints for its user."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from naturelm.cli import VERBS, main
from naturelm.cli._settings import archive_config


@pytest.fixture
def archive(tmp_path) -> Path:
    directory = tmp_path / "archive"
    directory.mkdir()
    soundfile.write(directory / "a.wav", np.zeros(16_000, np.float32), 16_000)
    return directory


def call(*arguments: object):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def refused(result) -> str:
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    (message,) = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    return message


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--hop", "0"], "hop is 0 s; give a --hop of at least 0.1 s"),
        (["--window", "-10"], "window is -10 s; give a --window of at least 0.1 s"),
        (["--window", "1e-300"], "window is 1e-300 s; give a --window of at least 0.1 s"),
        (["--window", "1", "--hop", "0.0001"], "hop is 0.0001 s; give a --hop of at least 0.1 s"),
        (["--window", "5", "--hop", "6"], "longer than the window"),
        (["--window", "nan"], "--window is nan: "),
        (["--query", "species="], "--query 'species=': the prompt has no text"),
        (["--query", "a=x", "--query", "a=y"], "--query: duplicate query id 'a'"),
        (["--query", "a:song=x"], "--query is 'song'"),
        (["--model", "no-such-model"], "no model 'no-such-model'"),
        (["--batch-size", "0"], "--batch-size is 0"),
        (["--workers", "-1"], "--workers is -1"),
        (["--channel", "-1"], "--channel is -1"),
        (["--merging-alpha", "3"], "--merging-alpha is 3"),
        (["--config", "none.yaml"], "none.yaml: cannot read"),
        (["--max-workers", "0"], "--max-workers is 0"),
        (["--gpus-per-worker", "2"], "--gpus-per-worker is 2"),
        (["--until", "soon"], "--until 'soon': is not a valid time"),
        (["--until", "2020-05-21T07:00"], "is over; give a time to come"),
    ],
)
def test_mistake_is_one_sentence_and_exit_code_2(archive, tmp_path, arguments, expected):
    assert expected in refused(call("process", archive, "--out", tmp_path / "out", *arguments))
    assert not (tmp_path / "out").exists()


def test_missing_path_is_told(tmp_path):
    message = refused(call("process", tmp_path / "nowhere", "--out", tmp_path / "out"))
    assert str(tmp_path / "nowhere") in message


def test_path_without_recordings_is_told(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no recordings found" in refused(call("process", tmp_path / "empty", "--out", tmp_path / "out"))


def test_out_that_is_a_file_is_told(archive, tmp_path):
    (tmp_path / "out").write_text("")
    assert "is a file; give --out a directory" in refused(call("process", archive, "--out", tmp_path / "out"))


def test_cluster_that_does_not_answer_is_named(archive, tmp_path):
    command = [sys.executable, "-m", "naturelm.cli", "process", archive, "--out", tmp_path / "out"]
    done = subprocess.run([*map(str, command), "--address", "127.0.0.1:1"], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error: --address 127.0.0.1:1: Ray cannot be joined there")
    assert "Traceback" not in done.stderr


def test_every_verb_has_help():
    for verb in VERBS:
        result = call(verb, "--help")
        assert result.exit_code == 0, verb
        assert "Usage: main" in result.output or "Usage: naturelm" in result.output


def test_version_is_told():
    result = call("--version")
    assert result.exit_code == 0
    assert result.output.startswith("naturelm, version ")


def test_prompt_without_an_id_is_named_query():
    config = archive_config(config=None, queries=("Which species?", "a:caption=What = this?", "Which frogs?"))
    assert [(query.id, query.kind, query.prompt) for query in config.queries] == [
        ("query", "detection", "Which species?"),
        ("a", "caption", "What = this?"),
        ("query2", "detection", "Which frogs?"),
    ]
