"""A small station night made by code, with sounds planted at known times."""

from __future__ import annotations

import csv
from datetime import datetime
from pathlib import Path

import numpy as np

from naturelm.synthetic.sounds import SOUNDS, add_sound, background, fade


def make_night(out_dir: str | Path, seed: int = 0) -> list[Path]:
    """Write a small station night: three stations, seven recordings, mostly quiet, with planted sounds.

    Three recorders are imitated: a Song Meter (WAV at 48 kHz, one FLAC), an AudioMoth (upper-case ``.WAV`` at 32 kHz
    with its comment) and another Song Meter at 24 kHz. ``planted.csv`` lists what was planted: ``path`` relative to
    `out_dir`, ``start_s``, ``end_s``, ``label``.

    Parameters
    ----------
    out_dir : str or Path
        Directory to write into; made if missing. Files of the same names are overwritten.
    seed : int
        The same seed gives the same night; another seed gives other individuals at other times.

    Returns
    -------
    list of Path
        The recordings written, in the order of `NIGHT`.
    """
    import soundfile

    out_dir = Path(out_dir)
    planted: list[tuple[str, float, float, str]] = []
    for index, (path, sample_rate_hz, duration_s, labels) in enumerate(NIGHT):
        rng = np.random.default_rng((seed, index))
        audio = 0.003 * background(rng, sample_rate_hz, duration_s)
        for window, label in labels.items():
            length_s = round(float(rng.uniform(5, 8)), 2)
            start_s = round(float(window * 10 + rng.uniform(0.5, 9.5 - length_s)), 2)
            sound = SOUNDS[label](rng, sample_rate_hz, length_s)
            sound *= rng.uniform(0.08, 0.3) * fade(sound.size, sample_rate_hz, 0.05)
            add_sound(audio, sound, start_s, sample_rate_hz)
            planted.append((path, start_s, round(start_s + length_s, 2), label))
        (out_dir / path).parent.mkdir(parents=True, exist_ok=True)
        with soundfile.SoundFile(out_dir / path, "w", sample_rate_hz, 1, "PCM_16") as file:
            if path.endswith(".WAV"):
                file.comment = _audiomoth_comment(path)
            file.write(audio)
    with open(out_dir / "planted.csv", "w", newline="") as table:
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(("path", "start_s", "end_s", "label"))
        writer.writerows(planted)
    return [out_dir / path for path, *_ in NIGHT]


NIGHT: tuple[tuple[str, int, float, dict[int, str]], ...] = (
    ("marsh/SMA00307_20260514_204500.wav", 48_000, 50.0, {1: "Frog", 3: "Frog"}),
    ("marsh/SMA00307_20260514_224500.wav", 48_000, 40.0, {0: "Cricket", 2: "Frog"}),
    ("marsh/SMA00307_20260515_004500.flac", 48_000, 40.0, {2: "Rain"}),
    ("ridge/20260514_213000.WAV", 32_000, 50.0, {1: "Owl", 4: "Wolf"}),
    ("ridge/20260515_013000.WAV", 32_000, 45.0, {2: "Wolf"}),
    ("orchard/S4A11873_20260514_233000.wav", 24_000, 50.0, {3: "Owl"}),
    ("orchard/S4A11873_20260515_043000.wav", 24_000, 60.0, {0: "Songbird", 1: "Songbird", 4: "Songbird"}),
)
"""The demo night: path, sample rate, length, and which ten-second window (by index) holds which sound."""


def _audiomoth_comment(path: str) -> str:
    """The sentence an AudioMoth writes into its WAV header, for a file named by its start in UTC."""
    start = datetime.strptime(Path(path).stem, "%Y%m%d_%H%M%S")
    return (
        f"Recorded at {start:%H:%M:%S %d/%m/%Y} (UTC) by AudioMoth 24F3190361DA5A9B at medium gain "
        "while battery was 4.1V and temperature was 9.3C."
    )
