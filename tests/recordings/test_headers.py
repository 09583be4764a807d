"""Headers of WAV, RF64, W64, FLAC and MP3 as they stand."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from naturelm.recordings.flac import read_flac_header
from naturelm.recordings.mpeg import read_mpeg_header
from naturelm.recordings.riff import mended_wave, read_wave_header
from tests.broken_files import RATE_HZ, SECONDS, chunk, noise, wav_bytes, without_tag, write

FRAMES = SECONDS * RATE_HZ
WAV = wav_bytes(noise())


@pytest.mark.parametrize(
    ("container", "options"),
    [("WAV", {}), ("WAV", {"format": "WAVEX"}), ("RF64", {"format": "RF64"}), ("W64", {"format": "W64"})],
)
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "ALAW"])
def test_headers_agree_with_libsndfile(
    tmp_path: Path, container: str, options: dict[str, str], subtype: str
) -> None:
    path = write(tmp_path / "x.wav", noise(channels=3), subtype=subtype, **{"format": "WAV", **options})
    with path.open("rb") as file:
        header = read_wave_header(file)
    assert header is not None
    assert (header.container, header.codec, header.channels) == (container, subtype, 3)
    assert (header.sample_rate_hz, header.frames, header.mend) == (RATE_HZ, FRAMES, False)


def test_a_cut_file_holds_less_than_its_header_claims() -> None:
    header = read_wave_header(io.BytesIO(WAV[:10_000]))
    assert header is not None
    assert (header.frames, header.claimed_frames) == ((10_000 - 44) // 2, FRAMES)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_a_size_that_was_never_written_means_the_rest_of_the_file(size: int) -> None:
    content = wav_bytes(noise(), data_size=size)
    header = read_wave_header(io.BytesIO(content))
    assert header is not None
    assert (header.frames, header.mend) == (FRAMES, True)
    with soundfile.SoundFile(mended_wave(io.BytesIO(content), header)) as mended:
        sound = mended.read(dtype="float32")
    np.testing.assert_array_equal(sound, soundfile.read(io.BytesIO(WAV), dtype="float32")[0])


def test_no_sound_before_a_comment_is_no_sound() -> None:
    header = read_wave_header(io.BytesIO(wav_bytes(noise(0), after=chunk(b"LIST", b"INFO"))))
    assert header is not None
    assert (header.frames, header.mend) == (0, False)


@pytest.mark.parametrize("container", ["RF64", "W64"])
def test_files_over_four_gigabytes(tmp_path: Path, container: str) -> None:
    path = write(tmp_path / "large", noise(0.01), format=container)
    frames = 2_500_000_000  # 5 GB, nearly all of it a hole
    with path.open("r+b") as file:
        content = file.read()
        if container == "RF64":
            data = content.index(b"data") + 8
            ds64 = content.index(b"ds64") + 8
            file.seek(ds64 + 8)
            file.write(struct.pack("<QQ", 2 * frames, frames))
        else:
            data = content.index(b"data") + 24
            file.seek(data - 8)
            file.write(struct.pack("<Q", 2 * frames + 24))
        file.truncate(data + 2 * frames)
    assert soundfile.info(path).frames == frames
    with path.open("r+b") as file:
        header = read_wave_header(file)
        file.truncate(6000)
        cut = read_wave_header(file)
    assert header is not None
    assert (header.frames, header.mend) == (frames, False)
    assert cut is not None
    assert (cut.claimed_frames, cut.mend) == (frames, False)
    assert cut.frames is not None
    assert 0 < cut.frames < 3000


def test_a_wav_that_wrapped_around_at_four_gigabytes_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "wrapped.wav"
    frames = (1 << 31) + 1000
    path.write_bytes(WAV[:40] + struct.pack("<I", 2 * frames - (1 << 32)) + WAV[44:])
    with path.open("r+b") as file:
        file.truncate(44 + 2 * frames)
        file.seek(44 + 2 * frames - 200)
        file.write(np.full(100, 1 << 14, "<i2").tobytes())
    with path.open("rb") as file:
        header = read_wave_header(file)
        assert header is not None
        assert (header.frames, header.mend) == (frames, True)
        mended = soundfile.SoundFile(mended_wave(file, header))
        mended.seek(frames - 100)
        np.testing.assert_array_equal(mended.read(), np.full(100, 0.5))


@given(st.binary(max_size=200), st.integers(0, 60), st.binary(min_size=1, max_size=8))
def test_lying_headers_never_raise_nor_read_much(tail: bytes, at: int, lie: bytes) -> None:
    content = bytearray(WAV[:60] + tail)
    content[at : at + len(lie)] = lie
    header = read_wave_header(io.BytesIO(bytes(content)))
    assert header is None or header.frames is None or header.frames >= 0


def test_flac_says_whether_its_end_is_there(tmp_path: Path) -> None:
    content = write(tmp_path / "x.flac", noise(channels=2)).read_bytes()
    whole = read_flac_header(io.BytesIO(content))
    cut = read_flac_header(io.BytesIO(content[: len(content) * 2 // 3]))
    padded = read_flac_header(io.BytesIO(content[: len(content) * 2 // 3] + bytes(len(content))))
    assert whole is not None
    assert (whole.frames, whole.channels, whole.sample_rate_hz, whole.intact) == (FRAMES, 2, RATE_HZ, True)
    for damaged in (cut, padded):
        assert damaged is not None
        assert (damaged.claimed_frames, damaged.intact) == (FRAMES, False)
        assert damaged.frames / FRAMES == pytest.approx(2 / 3, abs=0.07)


def test_flac_of_unknown_length_shows_it_in_its_last_frame(tmp_path: Path) -> None:
    content = bytearray(write(tmp_path / "x.flac", noise()).read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    header = read_flac_header(io.BytesIO(bytes(content)))
    assert header is not None
    assert header.frames == FRAMES


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 22_050, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_mp3_tags_say_the_exact_length(tmp_path: Path, rate_hz: int, channels: int) -> None:
    path = write(tmp_path / "x.mp3", noise(rate_hz=rate_hz, channels=channels), rate_hz)
    with path.open("rb") as file:
        header = read_mpeg_header(file)
    assert header is not None
    assert (header.frames, header.sample_rate_hz, header.channels) == (SECONDS * rate_hz, rate_hz, channels)


def test_mp3_without_a_tag_is_counted_behind_its_id3_tag(tmp_path: Path) -> None:
    content = without_tag(write(tmp_path / "x.mp3", noise(rate_hz=48_000), 48_000).read_bytes())
    id3 = b"ID3\x03\x00\x00" + bytes([0, 0, 2, 0]) + bytes(256)
    header = read_mpeg_header(io.BytesIO(id3 + content))
    assert header is not None
    assert (header.has_tag, header.first_frame_offset) == (False, len(id3))
    assert 0 <= header.frames - SECONDS * 48_000 < 3 * 1152


@given(st.binary(max_size=400))
def test_random_bytes_are_no_header(content: bytes) -> None:
    assert read_mpeg_header(io.BytesIO(content)) is None
    assert read_flac_header(io.BytesIO(content)) is None
    assert read_wave_header(io.BytesIO(content)) is None
