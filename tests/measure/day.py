"""A recording of 24 hours at 48 kHz: python -m tests.measure.day DATA WORKDIR

Makes one RF64 file of 8.3 GB, real calls from DATA mixed into noise now and then, processes it, kills the driver in the
middle, goes on, and prints times and the largest memory of the driver, of the decoder and of all processes together.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import soundfile

from tests.archive import faults
from tests.archive.faults import committed, descendants, start, wait_for_exit, wait_until
from tests.archive.runs import table

RATE_HZ = 48_000
HOURS = 24
SEGMENTS = HOURS * 6


def make_day(data: Path, path: Path) -> None:
    """Noise that is quieter at night, and each seven minutes a real call."""
    random = np.random.default_rng(24)
    calls = [soundfile.read(file, dtype="float32")[0] for file in sorted(data.glob("esc10/**/*.wav"))[:40]]
    minute = 60 * RATE_HZ
    noise = random.standard_normal(10 * minute).astype(np.float32)
    with soundfile.SoundFile(path, "w", RATE_HZ, 1, "PCM_16", format="RF64") as file:
        for number in range(HOURS * 60):
            level = 0.004 + 0.003 * np.sin(2 * np.pi * number / (HOURS * 60))
            sound = level * np.roll(noise, int(random.integers(len(noise))))[:minute]
            if number % 7 == 0 and calls:
                call = calls[number % len(calls)]
                call = call if call.ndim == 1 else call.mean(axis=1)
                first = int(random.integers(minute - len(call)))
                sound[first : first + len(call)] += 0.3 * call
            file.write(np.clip(sound, -1, 1))


def memory_mb(pid: int, field: str) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith(field + ":")) / 1000


class Memory:
    """Watches a process and all below it."""

    def __init__(self, pid: int) -> None:
        self.driver_mb = self.decoder_mb = self.all_mb = 0.0
        self._pid = pid
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while Path(f"/proc/{self._pid}").exists():
            below = descendants(self._pid, "")
            decoders = descendants(self._pid, "naturelm.audio.isolated")
            self.driver_mb = max(self.driver_mb, memory_mb(self._pid, "Rss"))
            self.decoder_mb = max([self.decoder_mb, *(memory_mb(pid, "Rss") for pid in decoders)])
            self.all_mb = max(self.all_mb, sum(memory_mb(pid, "Pss") for pid in [self._pid, *below]))
            time.sleep(0.5)

    def __str__(self) -> str:
        return f"driver {self.driver_mb:.0f} MB, largest decoder {self.decoder_mb:.0f} MB, all {self.all_mb:.0f} MB"


def measure(model: str, archive: Path, out: Path, workers: str) -> None:
    """Kill the driver when a third is done, then go on."""
    began = time.monotonic()
    process = start(model, archive, out, "--workers", workers)
    memory = Memory(process.pid)
    wait_until(lambda: committed(out) >= SEGMENTS // 3, process)
    process.kill()
    wait_for_exit(process)
    print(
        f"{model}, workers {workers}: killed with {committed(out)} of {SEGMENTS} segments committed", end=" "
    )
    print(f"after {time.monotonic() - began:.0f} s; {memory}", flush=True)
    before = committed(out)
    began = time.monotonic()
    process = start(model, archive, out, "--workers", workers)
    memory = Memory(process.pid)
    code, output = wait_for_exit(process)
    assert code == 0, output
    (row,) = table(out, "recordings").to_pylist()
    answers = table(out, "answers")
    keys = set(zip(*(answers[name].to_pylist() for name in ("window", "query")), strict=True))
    print(f"  rerun: {SEGMENTS - before} segments in {time.monotonic() - began:.0f} s; {memory}")
    print(
        f"  row: {row['status']}, {row['decoded_s']:.3f} of {row['duration_s']:.3f} s, {row['windows']} windows; "
        f"{answers.num_rows} answers, {len(keys)} different",
        flush=True,
    )


def main() -> None:
    faults.PATIENCE_S = 1800.0
    data, work = Path(sys.argv[1]), Path(sys.argv[2])
    archive = work / "archive"
    archive.mkdir(parents=True, exist_ok=True)
    path = archive / "DAY_20260520_000000.wav"
    if not path.exists():
        began = time.monotonic()
        make_day(data, path)
        print(f"made {os.path.getsize(path) / 1e9:.2f} GB in {time.monotonic() - began:.0f} s", flush=True)
    measure("stub", archive, work / "decoding", "0")
    measure("pocket", archive, work / "pocket", "2")


if __name__ == "__main__":
    main()
