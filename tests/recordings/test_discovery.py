"""Finding recordings on disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from naturelm.errors import NaturelmError
from naturelm.recordings import find_audio
from naturelm.recordings.discovery import path_from_text, path_to_text


def names(*paths: Path) -> list[str]:
    return [file.relative_path for file in find_audio(paths)]


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_upper_and_lower_case_names_at_all_depths_are_found_in_sorted_order(tmp_path: Path) -> None:
    touch(
        *(tmp_path / name for name in ("b.WAV", "a/deep/er/c.Flac", "a/d.mp3", "readme.txt", "e.opus", "wav"))
    )
    assert names(tmp_path) == ["a/d.mp3", "a/deep/er/c.Flac", "b.WAV", "e.opus"]


def test_phone_formats_that_cannot_be_read_are_found_too(tmp_path: Path) -> None:
    touch(tmp_path / "memo.m4a")
    assert names(tmp_path) == ["memo.m4a"]


def test_hidden_files_and_the_windows_bin_are_left_out(tmp_path: Path) -> None:
    touch(
        tmp_path / "._20190522.WAV",
        tmp_path / ".Trash/x.wav",
        tmp_path / "$RECYCLE.BIN/y.wav",
        tmp_path / "z.wav",
    )
    assert names(tmp_path) == ["z.wav"]


def test_a_directory_called_like_a_recording_is_searched(tmp_path: Path) -> None:
    touch(tmp_path / "x.wav/inside.wav")
    assert names(tmp_path) == ["x.wav/inside.wav"]


def test_the_root_is_the_directory_given_or_the_directory_of_a_file_given(tmp_path: Path) -> None:
    touch(tmp_path / "north/a.wav")
    below, outright = find_audio([tmp_path])[0], find_audio([tmp_path / "north/a.wav"])[0]
    assert (below.root, below.relative_path) == (tmp_path, "north/a.wav")
    assert (outright.root, outright.relative_path) == (tmp_path / "north", "a.wav")
    assert below.absolute == outright.absolute == tmp_path / "north/a.wav"


def test_a_file_given_outright_is_taken_whatever_its_name(tmp_path: Path) -> None:
    touch(tmp_path / ".sound")
    assert names(tmp_path / ".sound") == [".sound"]


def test_overlapping_paths_find_a_file_once(tmp_path: Path) -> None:
    touch(tmp_path / "north/a.wav", tmp_path / "b.wav")
    assert names(tmp_path, tmp_path / "north", tmp_path / "b.wav") == ["b.wav", "north/a.wav"]


def test_relative_paths_find_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "north/a.wav")
    monkeypatch.chdir(tmp_path)
    assert find_audio(["."]) == find_audio([tmp_path])


def test_link_loops_end_and_linked_directories_are_searched_once(tmp_path: Path) -> None:
    touch(tmp_path / "archive/north/a.wav", tmp_path / "card/b.wav")
    (tmp_path / "archive/again").symlink_to(tmp_path / "archive")
    (tmp_path / "archive/a_card").symlink_to(tmp_path / "card")
    (tmp_path / "archive/other_card").symlink_to(tmp_path / "card")
    (tmp_path / "archive/itself.wav").symlink_to("itself.wav")
    assert names(tmp_path / "archive") == ["a_card/b.wav", "itself.wav", "north/a.wav"]


def test_a_link_to_a_directory_does_not_rename_what_lies_in_it(tmp_path: Path) -> None:
    touch(tmp_path / "zebra/a.wav")
    before = names(tmp_path)
    (tmp_path / "alias").symlink_to(tmp_path / "zebra")
    assert names(tmp_path) == before == ["zebra/a.wav"]


def test_broken_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    assert names(tmp_path) == ["gone.wav"]


@pytest.mark.parametrize(
    "name", ['it\'s "frog" night\n🐸.wav', "n" * 246 + ".wav", os.fsdecode(b"gr\xfcn.wav")]
)
def test_odd_names_survive_as_text_and_open_again(tmp_path: Path, name: str) -> None:
    touch(tmp_path / name)
    found = find_audio([tmp_path])[0]
    found.relative_path.encode("utf-8")  # what a table needs
    assert os.path.exists(found.absolute)
    assert path_from_text(found.relative_path) == name
    assert path_to_text(name) == found.relative_path


def test_a_missing_path_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(NaturelmError, match=r"nowhere: does not exist; give a directory or a file$"):
        find_audio([tmp_path / "nowhere"])
