"""What the activity gate lets through: composed scenes, choruses, and the windows of a real station day.

    python -m tests.measure.gate DATA

DATA is the shared data directory. Prints Markdown tables.
"""

from __future__ import annotations

import csv
import math
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import soxr

from naturelm.audio.gate import activities_db
from naturelm.audio.isolated import DecodeRequest, IsolatedDecoder
from naturelm.audio.streaming import SoundStream
from naturelm.synthetic.sounds import SOUNDS, Waveform, background
from naturelm.windows import plan_windows
from tests.paths import REPO

THRESHOLDS_DB = (0.5, 1, 1.5, 2, 3, 4, 6, 8, 10)
SNRS_DB = (-20, -15, -10, -5, 0, 10)
RATE_HZ = 32_000
SEGMENT_S = 600.0
RECORDINGS = 24
# Of the sixty windows of a recording, how many hold a sound: from a quiet night to a busy dawn.
OCCUPIED = (6, 20, 45)
ANIMALS = ("Songbird", "Owl", "Frog", "Cricket", "Wolf", "Whale", "Bat")
ESC10_ANIMALS = ("dog", "rooster")
# What the windows of the real day show on their spectrograms.
SEEN = REPO / "examples/pocket/station_day_seen.csv"

Make = Callable[[np.random.Generator], Waveform]


def main() -> None:
    data = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "scenes.wav"
        composed(path, {**made(), **esc10(data / "esc10")})
        choruses(path)
        cost(path)
    station_day(sorted((data / "stations" / "S4A03895").glob("*.wav")))


def made() -> dict[str, Make]:
    """Sounds made by code, 1 to 8 s."""
    return {
        name: lambda rng, sound=SOUNDS[name]: sound(rng, RATE_HZ, float(rng.uniform(1, 8)))
        for name in ANIMALS
    }


def esc10(directory: Path) -> dict[str, Make]:
    """Recorded sounds, up to 5 s each with their own pauses."""
    clips: dict[str, list[Waveform]] = defaultdict(list)
    with open(directory / "esc10.csv", newline="") as table:
        for row in csv.DictReader(table):
            if row["category"] in ESC10_ANIMALS:
                sound, rate_hz = soundfile.read(directory / "audio" / row["filename"], dtype="float32")
                clips[row["category"]].append(soxr.resample(sound, rate_hz, RATE_HZ))
    return {
        f"{name} (ESC-10)": lambda rng, of=of: of[rng.integers(len(of))] for name, of in sorted(clips.items())
    }


def composed(path: Path, sounds: dict[str, Make]) -> None:
    """Ten-minute recordings of steady noise of random colour, and sounds in some of their windows."""
    rng = np.random.default_rng(0)
    by_snr, by_sound = defaultdict(list), defaultdict(list)
    empty: dict[int, list[float]] = defaultdict(list)
    for number in range(RECORDINGS):
        occupied = OCCUPIED[number % len(OCCUPIED)]
        audio = 0.01 * background(rng, RATE_HZ, SEGMENT_S)
        noise_rms = float(np.sqrt(np.mean(audio**2)))
        held: dict[int, tuple[str, int]] = {}
        for window in rng.permutation(60)[:occupied]:
            name, snr_db = list(sounds)[rng.integers(len(sounds))], int(rng.choice(SNRS_DB))
            sound = sounds[name](rng)
            # Against the noise while it sounds: its pauses do not count.
            loud = np.abs(sound) > 0.05 * np.abs(sound).max()
            level = noise_rms * 10 ** (snr_db / 20) / float(np.sqrt(np.mean(sound[loud] ** 2)))
            start = round((window * 10 + rng.uniform(0, 9.9 - len(sound) / RATE_HZ)) * RATE_HZ)
            audio[start : start + len(sound)] += level * sound
            held[int(window)] = (name, snr_db)
        soundfile.write(path, np.clip(audio, -1, 1), RATE_HZ, "PCM_16")
        for window, activity in enumerate(measure(path, SEGMENT_S)):
            if window in held:
                by_sound[held[window][0]].append(activity)
                by_snr[held[window][1]].append(activity)
            else:
                empty[occupied].append(activity)
    print(f"Composed scenes: {RECORDINGS} recordings of 60 windows; share let through\n")
    rows = {f"{snr_db} dB": by_snr[snr_db] for snr_db in SNRS_DB}
    rows |= {name: by_sound[name] for name in sounds}
    rows |= {f"empty, {occupied} of 60 windows hold a sound": empty[occupied] for occupied in OCCUPIED}
    print_shares(rows)


def choruses(path: Path) -> None:
    """The same sound from one end of a recording to the other."""
    rng = np.random.default_rng(1)
    rows = {}
    for name in ("Cricket", "Frog", "Songbird", "Rain", "Wind", "Engine"):
        sound = 0.1 * SOUNDS[name](rng, RATE_HZ, SEGMENT_S)
        soundfile.write(path, sound + 0.003 * background(rng, RATE_HZ, SEGMENT_S), RATE_HZ, "PCM_16")
        rows[name] = measure(path, SEGMENT_S)
    print("\nOne sound all the time, 10 min; share let through\n")
    print_shares(rows)


def cost(path: Path) -> None:
    """Decoding with and without levels: × real time by processor time, the best of three."""
    print("\nDecoding and resampling a minute of WAV, × real time of one core\n")
    print("| | without the gate | with it |\n|---|---|---|")
    for rate_hz in (16_000, 22_050, 32_000, 48_000, 96_000, 384_000):
        soundfile.write(path, 0.1 * background(np.random.default_rng(0), rate_hz, 60.0), rate_hz, "PCM_16")
        rates = []
        for measure_levels in (False, True):
            spent_s = []
            for _ in range(3):
                began = time.process_time()
                with SoundStream(path, measure_levels=measure_levels) as stream:
                    for _ in stream.read(0, None):
                        pass
                spent_s.append(time.process_time() - began)
            rates.append(60 / min(spent_s))
        print(f"| {rate_hz:,} Hz | {rates[0]:,.0f} | {rates[1]:,.0f} |")


def station_day(paths: list[Path]) -> None:
    """Single windows of a real day, by what their spectrograms show."""
    with SEEN.open(newline="") as table:
        seen = {row["time"]: row["seen"] for row in csv.DictReader(table)}
    shown: dict[str, list[float]] = {"all": [], "birds": [], "owl": [], "unclear": [], "nothing": []}
    for path in paths:
        (activity,) = measure(path, 10.0)
        for kind in ("all", seen[path.stem.split("_")[2][:4]]):
            shown[kind].append(activity)
    print("\nStation day: 96 recordings of one window; share let through\n")
    print_shares(shown)


def measure(path: Path, seconds: float) -> list[float]:
    with IsolatedDecoder() as decoder:
        (span,) = decoder.decode(DecodeRequest(str(path), ((0.0, seconds),), with_levels=True))
    assert span.levels is not None
    return activities_db(span.levels, plan_windows(seconds, 10.0, 10.0, 0, math.ceil(seconds / 10)))


def print_shares(rows: dict[str, list[float]]) -> None:
    print("| | windows | " + " | ".join(f"{threshold} dB" for threshold in THRESHOLDS_DB) + " |")
    print("|---|---|" + "---|" * len(THRESHOLDS_DB))
    for name, activities in rows.items():
        shares = [np.mean(np.array(activities) >= threshold) for threshold in THRESHOLDS_DB]
        print(f"| {name} | {len(activities)} | " + " | ".join(f"{share:.1%}" for share in shares) + " |")


if __name__ == "__main__":
    main()
