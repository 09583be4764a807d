"""Finding recordings on disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from naturelm.errors import NaturelmError
from naturelm.recordings import find_audio
from naturelm.recordings.discovery import (
    HIDDEN,
    IN_BINS,
    KERNEL_DIRECTORIES,
    SYSTEM_DIRECTORIES,
    path_from_text,
    path_to_text,
)


def names(*paths: Path) -> list[str]:
    return [file.relative_path for file in find_audio(paths).files]


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


@pytest.mark.parametrize(
    "directory",
    [
        *("$RECYCLE.BIN", "$Recycle.Bin", "$recycle.bin", "RECYCLER", "recycled", "#recycle", "@Recycle"),
        *(".Trash", ".Trashes", ".Trash-1000", "LOST.DIR", "deep/er/$Recycle.Bin", ".Trash-1000/files/sub"),
    ],
)
def test_recordings_in_recycle_bins_are_left_out_and_counted(tmp_path: Path, directory: str) -> None:
    touch(tmp_path / directory / "S-1-5-21/x.wav", tmp_path / directory / "y.w4v", tmp_path / "z.wav")
    touch(tmp_path / directory / "desktop.ini")
    found = find_audio([tmp_path])
    assert [file.relative_path for file in found.files] == ["z.wav"]
    (left_out,) = found.left_out
    assert (left_out.what, left_out.count) == (IN_BINS, 2)
    assert left_out.sentence.startswith("2 recordings in recycle bins (")


@pytest.mark.parametrize(
    ("directory", "what"),
    [
        ("System Volume Information", SYSTEM_DIRECTORIES),
        ("system volume information", SYSTEM_DIRECTORIES),
        ("lost+found", SYSTEM_DIRECTORIES),
        ("@eaDir", SYSTEM_DIRECTORIES),
        ("#snapshot", SYSTEM_DIRECTORIES),
        ("thumbnails", SYSTEM_DIRECTORIES),
        (".Spotlight-V100", HIDDEN),
        (".fseventsd", HIDDEN),
        (".@__thumb", HIDDEN),
    ],
)
def test_directories_of_systems_and_network_disks_are_left_out_and_counted(
    tmp_path: Path, directory: str, what: str
) -> None:
    touch(tmp_path / "a" / directory / "x.wav", tmp_path / "b" / directory / "x.wav", tmp_path / "z.wav")
    found = find_audio([tmp_path])
    assert [file.relative_path for file in found.files] == ["z.wav"]
    assert [(left_out.what, left_out.count, left_out.names) for left_out in found.left_out] == [
        (what, 2, (f"{directory} (2)",))
    ]


def test_other_files_are_counted_by_their_extensions(tmp_path: Path) -> None:
    touch(
        *(tmp_path / name for name in ("a.txt", "b.TXT", "c.xml", "README", "._20190522.WAV", ".DS_Store")),
        tmp_path / "z.wav",
    )
    assert [left_out.sentence for left_out in find_audio([tmp_path]).left_out] == [
        "1 files in which macOS keeps Finder settings (._* (1))",
        "4 files other than recordings (.txt (2), .xml (1), without an extension (1))",
        "1 hidden files and directories (.DS_Store (1))",
    ]


def test_names_of_what_is_left_out_are_few_and_in_the_same_order_on_every_machine(tmp_path: Path) -> None:
    touch(*(tmp_path / f"x.{extension}" for extension in ("f", "e", "d", "c", "b", "a", "a2")))
    (left_out,) = find_audio([tmp_path]).left_out
    assert left_out.names == (".a (1)", ".a2 (1)", ".b (1)", ".c (1)", ".d (1)", "…")


def test_nothing_is_left_out_of_a_tidy_card(tmp_path: Path) -> None:
    touch(tmp_path / "a/x.wav")
    assert find_audio([tmp_path]).left_out == []


def test_a_bin_that_is_named_outright_is_searched(tmp_path: Path) -> None:
    touch(tmp_path / "$RECYCLE.BIN/x.wav")
    assert names(tmp_path / "$RECYCLE.BIN") == ["x.wav"]


def test_a_directory_called_like_a_recording_is_searched(tmp_path: Path) -> None:
    touch(tmp_path / "x.wav/inside.wav")
    assert names(tmp_path) == ["x.wav/inside.wav"]


def test_the_root_is_the_directory_given_or_the_directory_of_a_file_given(tmp_path: Path) -> None:
    touch(tmp_path / "north/a.wav")
    below, outright = find_audio([tmp_path]).files[0], find_audio([tmp_path / "north/a.wav"]).files[0]
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
    (found,) = find_audio([tmp_path]).files
    found.relative_path.encode("utf-8")  # what a table needs
    assert os.path.exists(found.absolute)
    assert path_from_text(found.relative_path) == name
    assert path_to_text(name) == found.relative_path


def test_a_missing_path_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(NaturelmError, match=r"nowhere: does not exist; give a directory or a file$"):
        find_audio([tmp_path / "nowhere"])


def test_links_out_of_the_archive_are_followed_and_reported(tmp_path: Path) -> None:
    for name in ("disk/a.wav", "disk/deep/b.wav", "archive/own/c.wav", "empty/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "archive/disk2").symlink_to(tmp_path / "disk")
    (tmp_path / "archive/inside").symlink_to(tmp_path / "archive/own")
    (tmp_path / "archive/nothing").symlink_to(tmp_path / "empty")
    (tmp_path / "disk/back").symlink_to(tmp_path / "archive")
    found = find_audio([tmp_path / "archive"])
    assert [file.relative_path for file in found.files] == ["disk2/a.wav", "disk2/deep/b.wav", "own/c.wav"]
    (link,) = found.links
    assert (link.path, link.target, link.recordings) == (
        str(tmp_path / "archive/disk2"), str(tmp_path / "disk"), 2,
    )  # fmt: skip


def test_no_directory_is_taken_twice_whatever_leads_to_it(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "two/a.wav").touch()
    (tmp_path / "one/to_two").symlink_to(tmp_path / "two")
    (tmp_path / "three").symlink_to(tmp_path / "two")
    found = find_audio([tmp_path / "one", tmp_path / "two", tmp_path / "three"])
    assert [(file.root, file.relative_path) for file in found.files] == [(tmp_path / "two", "a.wav")]
    assert found.links == []


@pytest.mark.parametrize("target", ["/proc", "/proc/self", "/sys", "/dev"])
def test_directories_of_the_kernel_are_not_entered(tmp_path: Path, target: str) -> None:
    (tmp_path / "a.wav").touch()
    (tmp_path / "link").symlink_to(target)
    found = find_audio([tmp_path])
    assert [file.relative_path for file in found.files] == ["a.wav"]
    assert [kind.what for kind in found.left_out] == [KERNEL_DIRECTORIES]
