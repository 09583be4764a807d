"""An archive that holds awkward files of many kinds: all are accounted for, and the tidy ones are not affected."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from tests.archive.stub_runs import process_decoded, rows

RATE_HZ = 16_000


def write_tidy(archive: Path) -> None:
    archive.mkdir()
    for hour in range(3):
        noise = np.random.default_rng(hour).normal(0, 0.1, 20 * RATE_HZ).astype(np.float32)
        soundfile.write(archive / f"SITE1_20240510_{hour:02}0000.wav", noise, RATE_HZ)


def write_awkward(archive: Path) -> set[str]:
    """Write files with faults; returns the names of those that have a row."""
    random = np.random.default_rng(9)

    def sound(name: str, samples: np.ndarray, rate_hz: int = RATE_HZ, **options: Any) -> bytes:
        path = archive / name
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, samples, rate_hz, **options)
        return path.read_bytes()

    noise = random.normal(0, 0.1, (12 * RATE_HZ, 1)).astype(np.float32)
    zeros = np.zeros_like(noise)
    whole = sound("whole.wav", noise)
    sound("all_zeros.wav", zeros)
    sound("power_loss.wav", np.vstack([noise, zeros]))
    sound("inverted.wav", np.hstack([noise, -noise]))
    sound("dead.wav", np.hstack([zeros, noise]))
    sound("offset.wav", noise + np.float32(0.4))
    sound("clipped.wav", np.sign(noise))
    sound("nan.wav", np.full_like(noise, np.nan), subtype="FLOAT")
    sound("short.wav", noise[: RATE_HZ // 10])
    sound("slow.wav", noise, 7)
    sound("19700101_000000.wav", noise[::2])
    sound("$RECYCLE.BIN/deleted.wav", noise)
    guano = b"GUANO|Version: 1.0\nTimestamp: 0001-01-01T00:00:00+14:00\n"
    guano += b" " * (len(guano) % 2)
    contents = {
        "empty.wav": b"",
        "null.wav": bytes(50_000),
        "random.wav": random.bytes(50_000),
        "cut.wav": whole[: len(whole) // 2],
        "header.wav": whole[:30],
        "piped.wav": whole[:4] + b"\xff" * 4 + whole[8:40] + b"\xff" * 4 + whole[44:],
        "unpadded.wav": whole[:12] + b"axml" + struct.pack("<I", 3) + b"abc" + whole[12:],
        "year_one.wav": whole + b"guan" + struct.pack("<I", len(guano)) + guano,
        "song_meter.wac": b"WAac" + random.bytes(1000),
        "song_meter.w4v": random.bytes(1000),
        "sound_trap.sud": random.bytes(1000),
        "phone.m4a": random.bytes(1000),
    }
    for name, content in contents.items():
        (archive / name).write_bytes(content)
    (archive / "notes.txt").write_text("batteries changed", encoding="utf-8")
    return {path.name for path in archive.iterdir() if path.is_file()} - {"notes.txt"}


def test_every_awkward_file_has_its_row_and_tidy_rows_are_those_of_a_run_without_them(tmp_path: Path) -> None:
    write_tidy(tmp_path / "tidy")
    process_decoded(tmp_path / "tidy", tmp_path / "tidy_out")
    archive = tmp_path / "all"
    write_tidy(archive)
    expected = write_awkward(archive)
    process_decoded(archive, tmp_path / "out")

    found = {row["path"]: row for row in rows(tmp_path / "out", "recordings")}
    assert set(found) == expected
    for name in ("recordings", "answers"):
        tidy = rows(tmp_path / "tidy_out", name)
        ids = {row["recording_id"] for row in tidy}
        assert tidy
        assert [row for row in rows(tmp_path / "out", name) if row["recording_id"] in ids] == tidy

    by_status: dict[str, set[str]] = {}
    for path, row in found.items():
        by_status.setdefault(row["status"], set()).add(path)
    assert by_status["corrupt"] == {"empty.wav", "null.wav", "random.wav", "header.wav"}
    assert by_status["unsupported"] == {
        "slow.wav",
        "song_meter.wac",
        "song_meter.w4v",
        "sound_trap.sud",
        "phone.m4a",
    }
    assert by_status["too_short"] == {"short.wav"}
    assert by_status["partial"] == {"cut.wav"}
    assert found["piped.wav"]["decoded_s"] == found["unpadded.wav"]["decoded_s"] == 12
    assert found["all_zeros.wav"]["decoded_s"] == found["nan.wav"]["decoded_s"] == 0
    assert found["power_loss.wav"]["decoded_s"] == 12
    assert found["year_one.wav"]["start_local"] is None
    assert found["inverted.wav"]["channels_inverted"]
    assert found["dead.wav"]["channel_dead"] == 0
    assert found["clipped.wav"]["clipped_share"] > 0.9
    assert abs(found["offset.wav"]["dc"] - 0.4) < 0.01
