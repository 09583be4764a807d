"""Chunks without pad bytes, sizes that no file has, and metadata before and after the sound: none of it costs sound."""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import soundfile

from naturelm.recordings import Recording, scan
from naturelm.recordings.sound_files import open_sound, read_frames
from tests.broken_files import RATE_HZ, SECONDS, noise, wav_bytes, write

SOUND = noise()
PCM = (SOUND[:, 0] * 32767).astype("<i2")
GUANO = b"GUANO|Version:1.0\nTimestamp:2025-05-03T03:00:00Z\n"
START = datetime(2025, 5, 3, 3, tzinfo=UTC)
COMMENT = b"Recorded at 03:00:00 03/05/2025 (UTC) by AudioMoth 24F319055FDF2902 at medium gain"


def chunk(name: bytes, content: bytes, *, pad: bytes = b"") -> bytes:
    return name + struct.pack("<I", len(content)) + content + pad * (len(content) & 1)


def odd(content: bytes) -> bytes:
    return content if len(content) & 1 else content + b" "


def info(comment: bytes) -> bytes:
    return b"INFO" + chunk(b"ICMT", odd(comment), pad=b"\0")


def only(path: Path, content: bytes) -> Recording:
    path.write_bytes(content)
    (recording,) = scan([path])
    return recording


def samples(path: Path) -> np.ndarray:
    with open_sound(path) as sound:
        return sound.read(dtype="int16")


def assert_all_sound(recording: Recording, expected: np.ndarray = PCM) -> None:
    assert (recording.status, recording.error) == ("ok", None)
    assert recording.duration_s == len(expected) / RATE_HZ
    np.testing.assert_array_equal(samples(Path(recording.absolute_path)), expected)


BEFORE: dict[str, bytes] = {
    "axml of 495 bytes": chunk(b"axml", b"<ebuCoreMain/>".ljust(495)),
    "LIST": chunk(b"LIST", odd(info(b"night"))),
    "bext": chunk(b"bext", bytes(603)),
    "iXML": chunk(b"iXML", odd(b"<BWFXML></BWFXML>")),
    "guan": chunk(b"guan", odd(GUANO)),
    "a name that nobody knows": chunk(b"Qx7_", b"abc"),
    "JUNK of one byte": chunk(b"JUNK", b"J"),
    "two in a row": chunk(b"axml", b"abc") + chunk(b"JUNK", b"12345"),
    "one with and one without": chunk(b"axml", b"abc", pad=b"\0") + chunk(b"JUNK", b"12345"),
    "one whose contents look like chunks": chunk(b"JUNK", b"data\x04\0\0\0LIST\0\0\0\0x"),
    "a pad of another value": chunk(b"axml", b"abc", pad=b"\xee"),
    "a pad after an even size": chunk(b"axml", b"abcd") + b"\0",
}


@pytest.mark.parametrize("kind", BEFORE)
def test_chunk_before_the_sound_needs_no_pad_byte(tmp_path: Path, kind: str) -> None:
    recording = only(tmp_path / "x.wav", wav_bytes(SOUND, before=BEFORE[kind], after=chunk(b"guan", GUANO)))
    assert_all_sound(recording)
    assert recording.start_time == START


@pytest.mark.parametrize("pad", [b"", b"\0"])
@pytest.mark.parametrize("bits", [8, 24])
def test_metadata_behind_sound_of_odd_size_are_read(tmp_path: Path, pad: bytes, bits: int) -> None:
    frames = 2 * RATE_HZ + 1
    size = bits // 8 * frames
    form = struct.pack("<HHIIHH", 1, 1, RATE_HZ, RATE_HZ * bits // 8, bits // 8, bits)
    content = (
        b"RIFF\0\0\0\0WAVE" + chunk(b"fmt ", form) + b"data" + struct.pack("<I", size) + b"\x7f" * size + pad
    )
    recording = only(tmp_path / "x.wav", content + chunk(b"guan", GUANO))
    assert (recording.status, recording.frames, recording.start_time) == ("ok", frames, START)


@pytest.mark.parametrize("pad", [b"", b"\0"])
def test_odd_metadata_behind_the_sound_are_read_one_after_the_other(tmp_path: Path, pad: bytes) -> None:
    after = chunk(b"axml", b"abc", pad=pad) + chunk(b"bext", bytes(603), pad=pad) + chunk(b"guan", odd(GUANO))
    recording = only(tmp_path / "x.wav", wav_bytes(SOUND, after=after))
    assert_all_sound(recording)
    assert recording.start_time == START


@pytest.mark.parametrize(
    "size",
    [
        *(0, 0x80000000, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0x7FFFFFFF - 36, 0x80000000 - 36),
        *(0xFFFFFFFF - 36, 0xFFFFFFFE, 0xFFFFFFFF - 44, 2 * len(PCM) + 44, 2 * len(PCM) + 36),
    ],
    ids=hex,
)
@pytest.mark.parametrize("is_followed", [False, True])
def test_sizes_that_writers_to_pipes_leave_mean_to_the_end(
    tmp_path: Path, size: int, is_followed: bool
) -> None:
    after = chunk(b"LIST", info(COMMENT)) + chunk(b"guan", odd(GUANO)) if is_followed else b""
    recording = only(tmp_path / "x.wav", wav_bytes(SOUND, data_size=size, riff_size=size, after=after))
    assert_all_sound(recording)
    assert recording.start_time == (START if is_followed else None)


@pytest.mark.parametrize("size", [10**9, 0x70000000, 2 * len(PCM) + 1000, 0xF0000000])
def test_size_beyond_the_file_is_no_claim_and_says_that_the_file_was_cut(tmp_path: Path, size: int) -> None:
    recording = only(tmp_path / "x.wav", wav_bytes(SOUND, data_size=size))
    assert (recording.status, recording.duration_s) == ("partial", SECONDS)
    assert recording.error == (
        f"the sound ends at 4.00 s, before the {size // 2 / RATE_HZ:.2f} s that the header claims"
    )
    np.testing.assert_array_equal(samples(tmp_path / "x.wav"), PCM)


def test_chunk_of_a_false_size_before_the_sound_does_not_lose_it(tmp_path: Path) -> None:
    before = b"LIST" + struct.pack("<I", 0xFFFFFF) + info(b"metadata: none")
    assert_all_sound(only(tmp_path / "x.wav", wav_bytes(SOUND, before=before)))


def test_word_data_in_a_comment_is_no_sound(tmp_path: Path) -> None:
    content = wav_bytes(SOUND, before=chunk(b"LIST", info(b"metadata and more data: {" + b"x" * 900)))
    recording = only(tmp_path / "x.wav", content[:700])
    assert (recording.status, recording.frames) == ("too_short", 0)


SIXTY_FOUR: dict[str, Callable[[bytes], bytes]] = {
    "as it is": lambda content: content,
    "an odd chunk without pad": lambda content: _before_sound(content, chunk(b"axml", b"abc")),
    "the size was never written": lambda content: _sized(content, 0xFFFFFFFFFFFFFFFF),
    "the size is 0": lambda content: _sized(content, 0),
    "the size counts the header": lambda content: _sized(content, 2 * len(PCM) + 80),
    "the largest size": lambda content: _sized(content, (1 << 63) - 1),
}


def _before_sound(content: bytes, more: bytes) -> bytes:
    at = content.index(b"data")
    return content[:at] + more + content[at:]


def _sized(content: bytes, size: int) -> bytes:
    at = content.index(b"ds64") + 16
    return content[:at] + struct.pack("<Q", size) + content[at + 8 :]


@pytest.mark.parametrize("magic", [b"RF64", b"BW64"])
@pytest.mark.parametrize("kind", SIXTY_FOUR)
def test_rf64_and_bw64_are_read_alike(tmp_path: Path, kind: str, magic: bytes) -> None:
    content = write(tmp_path / "whole.rf64", SOUND, format="RF64").read_bytes()
    expected = soundfile.read(tmp_path / "whole.rf64", dtype="int16")[0]
    assert_all_sound(only(tmp_path / "x.wav", magic + SIXTY_FOUR[kind](content)[4:]), expected)


@pytest.mark.parametrize("size", [0, 24, (1 << 64) - 1, (1 << 63) - 1, 2 * len(PCM) + 24 + 100])
@pytest.mark.parametrize("more", [b"", b"\1\2\3"])
def test_w64_is_read_whatever_its_sizes_and_pads(tmp_path: Path, size: int, more: bytes) -> None:
    content = write(tmp_path / "whole.w64", SOUND, format="W64").read_bytes()
    expected = soundfile.read(tmp_path / "whole.w64", dtype="int16")[0]
    at = content.index(b"data")
    guid = b"junk" + content[at + 4 : at + 16]
    odd_chunk = guid + struct.pack("<Q", 24 + len(more)) + more if more else b""
    content = content[:at] + odd_chunk + content[at : at + 16] + struct.pack("<Q", size) + content[at + 24 :]
    assert_all_sound(only(tmp_path / "x.w64", content), expected)


AIFF: dict[str, Callable[[bytes], bytes]] = {
    "as it is": lambda content: content,
    "an odd chunk without pad": lambda content: _aiff_before(content, b"COMM", _anno(b"abc")),
    "an odd chunk with pad": lambda content: _aiff_before(content, b"COMM", _anno(b"abc") + b"\0"),
    "an odd chunk without pad before the sound": lambda c: _aiff_before(c, b"SSND", _anno(b"abc")),
    "the size is 0": lambda content: _aiff_sized(content, 0),
    "the size is that of an empty chunk": lambda content: _aiff_sized(content, 8),
    "the size was never written": lambda content: _aiff_sized(content, 0xFFFFFFFF),
    "the size of a pipe": lambda content: _aiff_sized(content, 0x80000000),
}


def _anno(text: bytes) -> bytes:
    return b"ANNO" + struct.pack(">I", len(text)) + text


def _aiff_before(content: bytes, name: bytes, more: bytes) -> bytes:
    at = content.index(name)
    return content[:at] + more + content[at:]


def _aiff_sized(content: bytes, size: int) -> bytes:
    at = content.index(b"SSND") + 4
    return content[:at] + struct.pack(">I", size) + content[at + 4 :]


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
@pytest.mark.parametrize("kind", AIFF)
def test_aiff_is_read_whatever_its_sizes_and_pads(tmp_path: Path, kind: str, subtype: str) -> None:
    content = write(tmp_path / "whole.aiff", SOUND, format="AIFF", subtype=subtype).read_bytes()
    expected = soundfile.read(tmp_path / "whole.aiff", dtype="int16")[0]
    assert_all_sound(only(tmp_path / "x.aiff", AIFF[kind](content)), expected)


def test_cut_aiff_says_what_its_header_claims(tmp_path: Path) -> None:
    content = write(tmp_path / "whole.aiff", SOUND).read_bytes()
    recording = only(tmp_path / "x.aiff", content[: -2 * 2 * RATE_HZ])
    assert (recording.status, recording.duration_s) == ("partial", SECONDS - 2)
    assert recording.error == "the sound ends at 2.00 s, before the 4.00 s that the header claims"


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x80000000, 10**9])
def test_au_claims_no_more_than_it_holds(tmp_path: Path, size: int) -> None:
    content = write(tmp_path / "whole.au", SOUND).read_bytes()
    recording = only(tmp_path / "x.au", content[:8] + struct.pack(">I", size) + content[12:])
    assert (recording.status, recording.duration_s) == ("partial" if size == 10**9 else "ok", SECONDS)
    np.testing.assert_array_equal(samples(tmp_path / "x.au"), samples(tmp_path / "whole.au"))


@pytest.mark.parametrize("size", [-1, 0x7FFFFFFFFFFFFFFF, 10**12])
def test_caf_claims_no_more_than_it_holds(tmp_path: Path, size: int) -> None:
    content = write(tmp_path / "whole.caf", SOUND).read_bytes()
    at = content.index(b"data") + 4
    recording = only(tmp_path / "x.caf", content[:at] + struct.pack(">q", size) + content[at + 8 :])
    assert (recording.status, recording.duration_s) == ("partial" if size == 10**12 else "ok", SECONDS)
    np.testing.assert_array_equal(samples(tmp_path / "x.caf"), samples(tmp_path / "whole.caf"))


def test_cut_flac_holds_its_whole_frames(tmp_path: Path) -> None:
    content = write(tmp_path / "whole.flac", noise(20)).read_bytes()
    whole = soundfile.read(tmp_path / "whole.flac", dtype="int16")[0]
    for length in (len(content) // 5, len(content) // 2):
        for filling in (b"", bytes(300_000), b"\xff" * 70_000):
            recording = only(tmp_path / "x.flac", content[:length] + filling)
            assert recording.status == "partial"
            assert recording.frames is not None
            decoded = np.empty((len(whole), 1), np.float32)
            with open_sound(tmp_path / "x.flac") as sound:
                assert read_frames(sound, decoded) >= recording.frames
            np.testing.assert_array_equal(
                np.round(decoded[: recording.frames, 0] * 32768), whole[: recording.frames]
            )
            assert recording.frames > len(whole) * length / len(content) - 3 * 4096
