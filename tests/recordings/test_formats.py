"""What is a recording by its name and content, and how those that are not read are reported."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from naturelm.recordings import Recording, find_audio, scan
from naturelm.recordings.formats import READ_EXTENSIONS
from tests.broken_files import noise, write

RANDOM = np.random.default_rng(0).bytes(50_000)


def only(path: Path, content: bytes) -> Recording:
    path.write_bytes(content)
    (recording,) = scan([path.parent])
    return recording


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("SM2_20120501_053000.wac", "Kaleidoscope"),
        ("WALDEN_20240601_140505.W4V", "Kaleidoscope"),
        ("5146.240510053000.sud", "SoundTrap Host"),
        ("5146.240510053000.bcl", "SoundTrap Host"),
        ("5146.240510053000.dwv", "SoundTrap Host"),
        ("20240510053000.zc", "Anabat Insight"),
        ("L6171932.45#", "Anabat Insight"),
        ("memo.x3", "PAMGuard"),
        ("20240510.dsg", "dsg2wav"),
        ("00001.raw", "bcAdmin"),
        ("DS_50001.DS2", "dictation recorder"),
        *((f"memo.{extension}", "ffmpeg") for extension in ("m4a", "aac", "amr", "wma", "dsf", "dff", "ape")),
        *((f"CAM0001.{extension}", "ffmpeg") for extension in ("MP4", "mov", "avi", "mkv", "3gp", "webm")),
        ("x.aud", "program of the recorder"),
    ],
)
def test_recordings_that_are_not_read_name_the_program_that_converts_them(
    tmp_path: Path, name: str, program: str
) -> None:
    recording = only(tmp_path / name, RANDOM)
    assert recording.status == "unsupported"
    assert recording.error is not None
    assert program in recording.error


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"WAac", "Song Meter"),
        (b"X3ARCHIV", "X3"),
        (b"\0\0\0\x20ftypM4A \0\0\2\0", "MPEG-4"),
        (b"\0\0\0\x14ftypqt  ", "video"),
        (b"\0\0\0\x18ftypmp42", "MPEG-4"),
        (b"#!AMR\n", "AMR"),
        (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "Windows Media"),
        (b"\xff\xf1\x50\x80", "AAC"),
        (b"wvpk", "WavPack"),
        (b"\x02dss", "dictation"),
        (b"DSD \x1c\0\0\0", "DSD"),
        (b"RIFF\0\0\0\0AVI LIST", "video"),
        (b"\x1a\x45\xdf\xa3", "video"),
    ],
)
def test_content_is_recognised_under_another_name(tmp_path: Path, head: bytes, expected: str) -> None:
    recording = only(tmp_path / "20240510_053000.wav", head + RANDOM)
    assert recording.status == "unsupported"
    assert expected in (recording.error or "")


@pytest.mark.parametrize("name", ["x.x.wav", "x.xwav", "x.kwav", "x.bwf"])
def test_wave_files_of_other_names_are_read(tmp_path: Path, name: str) -> None:
    write(tmp_path / "sound.wav", noise()).rename(tmp_path / name)
    (recording,) = scan([tmp_path])
    assert (recording.status, recording.duration_s) == ("ok", 4)


@pytest.mark.parametrize("extension", sorted(READ_EXTENSIONS))
@pytest.mark.parametrize("content", [bytes(70_000), b"\xff" * 70_000, bytes(3), RANDOM])
def test_null_files_and_random_bytes_are_corrupt(tmp_path: Path, extension: str, content: bytes) -> None:
    recording = only(tmp_path / f"x.{extension}", content)
    assert (recording.status, recording.duration_s) == ("corrupt", None)
    assert recording.error


@pytest.mark.parametrize("extension", ["w4v", "m4a", "sud"])
def test_null_files_of_formats_that_are_not_read_are_corrupt_too(tmp_path: Path, extension: str) -> None:
    assert only(tmp_path / f"x.{extension}", bytes(100)).status == "corrupt"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\x89PNG\r\n\x1a\n" + RANDOM, "a PNG picture"),
        (b"\xff\xd8\xff\xe0" + RANDOM, "a JPEG picture"),
        (b"%PDF-1.7\n" + RANDOM, "a PDF document"),
        ("Batterie gewechselt, Frösche die ganze Nacht\r\n".encode() * 40, "text"),
        (b"<!DOCTYPE html><title>404</title>", "text"),
    ],
)
def test_other_files_under_a_recordings_name_are_called_what_they_are(
    tmp_path: Path, content: bytes, what: str
) -> None:
    recording = only(tmp_path / "x.wav", content)
    assert (recording.status, recording.error) == ("unsupported", f"is {what} and no recording")


def test_an_archive_of_recordings_is_called_one(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.wav", "w") as archive:
        archive.writestr("a.wav", b"RIFF")
    (recording,) = scan([tmp_path])
    assert (recording.status, recording.error) == ("unsupported", "is a ZIP archive and no recording")


def test_wave_file_of_an_unknown_encoding_is_unsupported(tmp_path: Path) -> None:
    content = bytearray(write(tmp_path / "x.wav", noise()).read_bytes())
    content[20:22] = struct.pack("<H", 0x1234)
    recording = only(tmp_path / "x.wav", bytes(content))
    assert recording.status == "unsupported"
    assert "convert it with ffmpeg" in (recording.error or "")


def test_every_kind_is_found_below_a_directory(tmp_path: Path) -> None:
    for name in ("a.w4v", "b.SUD", "c.zc", "d.mp4", "e.wac", "f.m4a", "L6171932.45#", "g.mp2"):
        (tmp_path / name).write_bytes(RANDOM)
    (tmp_path / "h.dat").write_bytes(RANDOM)
    found = find_audio([tmp_path])
    assert len(found.files) == 8
    assert [left_out.names for left_out in found.left_out] == [(".dat (1)",)]
