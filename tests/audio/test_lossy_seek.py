"""Pieces of MP3 and Ogg recordings that are found by a seek: the same samples as in order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from naturelm.audio.streaming import decode
from naturelm.training.pieces import claimed_s, piece

RATE_HZ = 44_100
SECONDS = 60
TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    """A minute of noise whose level changes every second, in three ways of encoding."""
    directory = tmp_path_factory.mktemp("lossy")
    rng = np.random.default_rng(0)
    levels = np.repeat(rng.uniform(0.005, 0.1, SECONDS), RATE_HZ)
    sound = (levels * rng.normal(0, 1, SECONDS * RATE_HZ)).astype(np.float32)
    for name, kind, mode in (
        ("cbr.mp3", "MP3", {}),
        ("vbr.mp3", "MP3", {"bitrate_mode": "VARIABLE", "compression_level": 0.5}),
        ("x.ogg", "OGG", {}),
    ):
        with soundfile.SoundFile(directory / name, "w", RATE_HZ, 1, format=kind, **mode) as file:
            for start in range(0, len(sound), RATE_HZ):
                file.write(sound[start : start + RATE_HZ])
    content = (directory / "vbr.mp3").read_bytes()
    # Without the frame that holds the length, and cut in its middle.
    second = content.index(content[:2], 4)
    (directory / "without_tag.mp3").write_bytes(content[second:])
    (directory / "cut.mp3").write_bytes(content[: len(content) // 2])
    return directory


@pytest.mark.parametrize("name", ["cbr.mp3", "vbr.mp3", "x.ogg", "without_tag.mp3", "cut.mp3"])
def test_piece_found_by_a_seek_is_that_of_decoding_in_order(recordings, name):
    path = str(recordings / name)
    whole = np.concatenate(list(decode(path)))
    room_s = claimed_s(path) - 3.0
    for place in (0.0, 0.2, 0.41, 0.73, 0.97):
        found = piece(path, 3.0, place)
        start = round(place * room_s * 16_000)
        expected = whole[start : start + 48_000]
        assert len(found) == len(expected)
        # A shift by a single sample of 16 kHz would differ by as much as the noise itself.
        assert np.abs(found - expected).max(initial=0.0) < TOLERANCE
