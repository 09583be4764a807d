"""Random ten-second pieces of a long recording by format: how fast, and how far from decoding in order.

python -m tests.measure.training_pieces DIRECTORY    # six-minute recordings are made there, if they are missing
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import soundfile

from naturelm.audio.streaming import decode
from naturelm.training.pieces import claimed_s, piece

SECONDS, RATE_HZ, PIECES = 360, 44_100, 100
FORMATS = ("wav", "flac", "cbr.mp3", "vbr.mp3", "ogg")


def make(directory: Path) -> None:
    """Noise whose level changes each second, in every format."""
    directory.mkdir(parents=True)
    rng = np.random.default_rng(0)
    levels = np.repeat(rng.uniform(0.005, 0.1, SECONDS), RATE_HZ)
    sound = np.clip(levels * rng.normal(0, 1, SECONDS * RATE_HZ), -1, 1).astype(np.float32)
    for name in FORMATS:
        mode = {"bitrate_mode": "VARIABLE", "compression_level": 0.5} if name == "vbr.mp3" else {}
        kind = name.rpartition(".")[2].upper()
        with soundfile.SoundFile(directory / f"x.{name}", "w", RATE_HZ, 1, format=kind, **mode) as file:
            # libsndfile's Vorbis encoder fails on much at once.
            for start in range(0, len(sound), RATE_HZ):
                file.write(sound[start : start + RATE_HZ])


def main(directory: Path) -> None:
    if not directory.exists():
        make(directory)
    places = np.random.default_rng(1).random(PIECES)
    for name in FORMATS:
        path = str(directory / f"x.{name}")
        whole = np.concatenate(list(decode(path)))
        room_s = claimed_s(path) - 10
        began = time.process_time()
        pieces = [piece(path, 10.0, place) for place in places]
        seconds = time.process_time() - began
        farthest = 0.0
        for place, sound in zip(places, pieces, strict=True):
            start = round(place * room_s * 16_000)
            farthest = max(farthest, float(np.abs(sound - whole[start : start + len(sound)]).max()))
        print(f"{name:>8}: {PIECES / seconds:4.0f} pieces a CPU-second, at most {farthest:.1e} off")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
