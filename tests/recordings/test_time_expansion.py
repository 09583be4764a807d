"""Files that play slower than life: rate, length and times are those of life."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import soundfile

from naturelm.audio.isolated import DecodeRequest, IsolatedDecoder, pcm_samples
from naturelm.recordings import Recording, scan
from naturelm.recordings.sound_files import open_sound
from naturelm.recordings.times import clock_remark
from tests.broken_files import RATE_HZ, chunk, wav_bytes
from tests.recordings.test_tags import in_flac, vorbis

SECONDS = 20
TONE_HZ = 300


def tone() -> np.ndarray:
    """A tone of 3 kHz in life, played ten times slower."""
    samples = np.arange(SECONDS * RATE_HZ)
    return (0.5 * np.sin(2 * np.pi * TONE_HZ * samples / RATE_HZ)).astype(np.float32)[:, None]


def with_guano(path: Path, *fields: str, rate_hz: int = RATE_HZ) -> Recording:
    block = "\n".join(["GUANO|Version: 1.0", "Timestamp: 2025-05-03T03:00:00Z", *fields])
    path.write_bytes(wav_bytes(tone(), rate_hz, after=chunk(b"guan", block.encode())))
    (recording,) = scan([path])
    return recording


def test_time_expansion_corrects_rate_and_length_and_is_remarked(tmp_path: Path) -> None:
    recording = with_guano(tmp_path / "x.wav", "TE: 10")
    assert (recording.sample_rate_hz, recording.duration_s) == (10 * RATE_HZ, SECONDS / 10)
    assert recording.start_local == datetime(2025, 5, 3, 3)
    assert recording.remarks == (
        "plays 10 times slower than life: rate and times are corrected by its GUANO block",
    )


def test_sound_is_decoded_at_the_speed_of_life(tmp_path: Path) -> None:
    recording = with_guano(tmp_path / "x.wav", "TE: 10")
    with IsolatedDecoder() as decoder:
        whole, part = decoder.decode(
            DecodeRequest(recording.absolute_path, ((0.0, recording.duration_s), (0.5, 1.0)))
        )
    assert (whole.status, whole.decoded_s, part.status) == ("ok", SECONDS / 10, "ok")
    spectrum = np.abs(np.fft.rfft(pcm_samples(whole.pcm)[:16_000]))
    assert spectrum.argmax() == 10 * TONE_HZ
    with open_sound(recording.absolute_path) as sound:
        assert (sound.samplerate, sound.frames) == (10 * RATE_HZ, SECONDS * RATE_HZ)


def test_flac_made_of_such_a_file_is_corrected_too(tmp_path: Path) -> None:
    (tmp_path / "x.flac").write_bytes(
        in_flac(tmp_path, 4, vorbis("GUANO=GUANO|Version: 1.0\nTE: 8\nSamplerate: 128000"))
    )
    (recording,) = scan([tmp_path / "x.flac"])
    assert (recording.sample_rate_hz, recording.duration_s) == (8 * RATE_HZ, 0.5)
    with IsolatedDecoder() as decoder:
        (span,) = decoder.decode(DecodeRequest(recording.absolute_path, ((0.0, 0.5),)))
    assert (span.status, span.decoded_s) == ("ok", 0.5)


@pytest.mark.parametrize(
    ("fields", "factor"),
    [
        (("TE: 1",), 1),
        (("TE: 10", "Samplerate: 160000"), 10),
        (("TE:10", "Samplerate: 160000", "Length: 2.0"), 10),
        (("TE: 10.0",), 10),
        (("TE: 16",), 16),
        (("TE: 0",), 1),
        (("TE: -10",), 1),
        (("TE: nan",), 1),
        (("TE: inf",), 1),
        (("TE: 1e9",), 1),
        (("TE: 100000",), 1),
        (("TE: ten",), 1),
        (("TE: " + "9" * 6000,), 1),
        # The expansion was undone, and the block kept.
        (("TE: 10", "Samplerate: 16000", "Length: 20.0"), 1),
        # No `TE`: the rate says it where the length does, and a file that was resampled keeps both.
        (("Samplerate: 160000", "Length: 2.0"), 10),
        (("Samplerate: 160000", "Length: 20.0"), 1),
        (("Samplerate: 160000",), 1),
        (("Samplerate: 16000",), 1),
        (("Samplerate: 16000", "Length: 20.0"), 1),
    ],
)
def test_fields_that_say_so_agree(tmp_path: Path, fields: tuple[str, ...], factor: int) -> None:
    recording = with_guano(tmp_path / "x.wav", *fields)
    assert (recording.status, recording.sample_rate_hz) == ("ok", factor * RATE_HZ)
    assert recording.duration_s == pytest.approx(SECONDS / factor)


def test_no_expansion_beyond_what_detectors_sample_at(tmp_path: Path) -> None:
    """The header of this file says the rate of life already."""
    assert with_guano(tmp_path / "x.wav", "TE: 10", rate_hz=384_000).sample_rate_hz == 384_000


def test_cut_file_and_its_header_agree_on_the_expansion(tmp_path: Path) -> None:
    block = chunk(b"guan", b"GUANO|Version: 1.0\nTE: 10\nLength: 2.0\n")
    content = wav_bytes(tone(), before=block)
    path = tmp_path / "x.wav"
    path.write_bytes(content[: len(content) // 2])
    (recording,) = scan([path])
    assert (recording.status, recording.sample_rate_hz) == ("partial", 10 * RATE_HZ)
    with open_sound(path) as sound:
        assert sound.samplerate == recording.sample_rate_hz


def test_other_files_keep_the_rate_of_their_header(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.flac", np.zeros(16_000), 16_000)
    with open_sound(tmp_path / "x.flac") as sound:
        assert sound.samplerate == 16_000


NOW = datetime(2026, 11, 26, 12)


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (datetime(1970, 1, 1, 0, 3), "the clock shows 1970, where a clock begins that was never set"),
        (datetime(1980, 1, 1), "the clock shows 1980, where a clock begins that was never set"),
        (datetime(2000, 3, 9), "the clock shows 2000, where a clock begins that was never set"),
        (datetime(2026, 11, 28), "the clock shows 2026-11-28 00:00, which is in the future"),
        (datetime(2064, 5, 10), "the clock shows 2064-05-10 00:00, which is in the future"),
        (datetime(2026, 11, 27, 11), None),  # it may be tomorrow elsewhere
        (datetime(1999, 12, 31), None),
        (datetime(2001, 1, 1), None),
        (datetime(2026, 5, 10), None),
        (None, None),
    ],
)
def test_clocks_that_were_never_set_or_run_ahead_are_remarked(
    start: datetime | None, expected: str | None
) -> None:
    assert clock_remark(start, NOW) == expected
