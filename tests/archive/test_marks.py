"""What is wrong with the sound is in the `recordings` rows, and what holds no sound is no effort."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.archive.stub_runs import process_decoded, rows, settings, tables

RATE_HZ = 16_000


def noise(seconds: float, channels: int = 1) -> np.ndarray:
    shape = (round(seconds * RATE_HZ), channels)
    return np.random.default_rng(1).normal(0, 0.1, shape).astype(np.float32)


def write(path: Path, sound: np.ndarray, subtype: str = "PCM_16") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound, RATE_HZ, subtype=subtype)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Two minutes each: segments of half a minute cut them within their zeros."""
    directory = tmp_path / "archive"
    write(directory / "good.wav", noise(120))
    power_loss = noise(120)
    power_loss[round(45.5 * RATE_HZ) :] = 0
    write(directory / "power_loss.wav", power_loss)
    write(directory / "zeros.wav", np.zeros(120 * RATE_HZ))
    triggered = noise(120)
    triggered[round(40 * RATE_HZ) : round(100 * RATE_HZ)] = 0
    write(directory / "triggered.wav", triggered)
    stereo = noise(120)
    write(directory / "inverted.wav", np.hstack([stereo, -stereo]))
    broken = noise(120)
    broken[round(50 * RATE_HZ) : round(70 * RATE_HZ)] = np.nan
    write(directory / "nan.wav", broken, "FLOAT")
    return directory


def recordings(out: Path) -> dict[str, dict[str, Any]]:
    return {row["path"]: row for row in rows(out, "recordings")}


def test_marks_are_columns_and_what_holds_no_sound_is_no_effort(archive: Path, tmp_path: Path) -> None:
    process_decoded(archive, tmp_path / "out")
    found = recordings(tmp_path / "out")
    assert {path: row["decoded_s"] for path, row in found.items()} == pytest.approx(
        {
            "good.wav": 120,
            "inverted.wav": 120,
            "nan.wav": 100,
            "power_loss.wav": 45.5,
            # A recorder that is triggered by sound writes zeros in between: it listened.
            "triggered.wav": 120,
            "zeros.wav": 0,
        },
        abs=0.01,
    )
    assert {path: row["zeros_s"] for path, row in found.items() if row["zeros_s"]} == pytest.approx(
        {"power_loss.wav": 74.5, "triggered.wav": 60, "zeros.wav": 120}, abs=0.01
    )
    assert found["nan.wav"]["nonfinite_s"] == 20
    assert [path for path, row in found.items() if row["channels_inverted"]] == ["inverted.wav"]
    assert {row["status"] for row in found.values()} == {"ok"}


def test_rows_are_the_same_however_recordings_are_cut_and_runs_are_interrupted(
    archive: Path, tmp_path: Path
) -> None:
    process_decoded(archive, tmp_path / "whole", settings(job={"segment_minutes": 10}))
    short = settings(job={"segment_minutes": 0.5})
    process_decoded(archive, tmp_path / "parts", short, limit=5)
    process_decoded(archive, tmp_path / "parts", short)
    assert tables(tmp_path / "parts") == tables(tmp_path / "whole")


def test_recordings_that_hold_no_sound_have_no_marks(tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive/x.wav").write_bytes(b"")
    process_decoded(tmp_path / "archive", tmp_path / "out")
    (row,) = rows(tmp_path / "out", "recordings")
    assert [row[name] for name in ("zeros_s", "clipped_share", "dc", "channels_inverted")] == [None] * 4
