"""Asking, without a browser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from naturelm.app.ask import MAX_FILES, Asker, SoundAnswer, UploadedSound, check_question, open_sounds
from naturelm.errors import NaturelmError
from tests.paths import SMALL_MODEL


def sound_file(path: Path, seconds: float, rate: int = 8000) -> Path:
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(round(seconds * rate)), rate)
    return path


def answers_to(
    asker: Asker, sounds: list[UploadedSound], question: str = "Caption the audio.", alpha: float = 1.0
) -> list[SoundAnswer]:
    return [answer for batch in asker.answer(sounds, question, alpha) for answer in batch]


@pytest.fixture(scope="module")
def asker() -> Asker:
    return Asker(str(SMALL_MODEL))


def test_every_window_of_every_sound_is_answered(asker: Asker, tmp_path: Path) -> None:
    paths = [sound_file(tmp_path / "a.wav", 23.0), sound_file(tmp_path / "b.flac", 4.0, 44_100)]
    answers = answers_to(asker, open_sounds(paths, 10.0, 10.0))
    assert [(answer.sound.name, answer.window.start_s, answer.window.end_s) for answer in answers] == [
        ("a.wav", 0.0, 10.0),
        ("a.wav", 10.0, 20.0),
        ("a.wav", 20.0, 23.0),
        ("b.flac", 0.0, 4.0),
    ]
    assert [len(answer.samples) for answer in answers] == [160_000, 160_000, 48_000, 64_000]
    assert all(0 < answer.score <= 1 for answer in answers)


def test_merging_alpha_changes_the_answer_and_changes_it_back(asker: Asker, tmp_path: Path) -> None:
    sounds = open_sounds([sound_file(tmp_path / "a.wav", 10.0)], 10.0, 10.0)
    texts = [[a.text for a in answers_to(asker, sounds, alpha=alpha)] for alpha in (1.0, 0.0, 1.0)]
    assert texts[0] == texts[2] != texts[1]


def test_a_follow_up_question_is_answered_anew(asker: Asker, tmp_path: Path) -> None:
    sounds = open_sounds([sound_file(tmp_path / "a.wav", 10.0)], 10.0, 10.0)
    questions = ("Caption the audio.", "How many individuals are heard?", "Caption the audio.")
    texts = [[a.text for a in answers_to(asker, sounds, question)] for question in questions]
    assert texts[0] == texts[2] != texts[1]


def test_stopping_leaves_the_model_free(asker: Asker, tmp_path: Path) -> None:
    sounds = open_sounds([sound_file(tmp_path / "a.wav", 60.0)], 10.0, 10.0)
    stopped = asker.answer(sounds, "Caption the audio.", 1.0)
    assert len(next(stopped)) < 6
    stopped.close()
    short = open_sounds([sound_file(tmp_path / "b.wav", 3.0)], 10.0, 10.0)
    assert len(answers_to(asker, short)) == 1


def test_an_hour_is_the_limit_of_all_sounds_together(tmp_path: Path) -> None:
    silence = np.zeros(31 * 60 * 1000, np.int16)
    for name in "ab":
        soundfile.write(tmp_path / f"{name}.flac", silence, 1000)
    assert len(open_sounds([tmp_path / "a.flac"], 10.0, 10.0)[0].windows) == 186
    with pytest.raises(NaturelmError, match=r"are 62\.0 min long; ask about at most 60\.0 min"):
        open_sounds([tmp_path / "a.flac", tmp_path / "b.flac"], 10.0, 10.0)


def test_files_beyond_the_limit_are_refused(tmp_path: Path) -> None:
    path = sound_file(tmp_path / "a.wav", 1.0)
    assert len(open_sounds([path] * MAX_FILES, 10.0, 10.0)) == MAX_FILES
    with pytest.raises(NaturelmError, match="at most 20"):
        open_sounds([path] * (MAX_FILES + 1), 10.0, 10.0)


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "a.wav").open("wb") as file:
        file.truncate(200 * 1024 * 1024 + 1)  # a hole, no bytes
    with pytest.raises(NaturelmError, match="larger than 200 MiB"):
        open_sounds([tmp_path / "a.wav"], 10.0, 10.0)


@pytest.mark.parametrize(
    "content", [b"", b"no sound at all, whatever it is called", b"RIFF\xff\xff\xff\xffWAVEfmt "]
)
def test_a_file_that_is_no_sound_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(NaturelmError, match=r"^a\.wav: "):
        open_sounds([tmp_path / "a.wav"], 10.0, 10.0)


def test_no_sound_and_no_question_are_told() -> None:
    with pytest.raises(NaturelmError, match="there is no sound"):
        open_sounds([], 10.0, 10.0)
    with pytest.raises(NaturelmError, match="there is no question"):
        check_question(" \n")
    with pytest.raises(NaturelmError, match="2001 characters"):
        check_question("x" * 2001)


def test_an_unknown_model_is_told_before_the_page_opens() -> None:
    with pytest.raises(NaturelmError, match="there is no model 'no-such-model'"):
        Asker("no-such-model")
