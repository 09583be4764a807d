"""Sounds made by code lie in their bands, repeat exactly, and are where `planted.csv` says."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from naturelm.synthetic import sounds as synthesis
from naturelm.synthetic.nights import NIGHT, make_night
from naturelm.synthetic.sounds import BANDS_HZ, SOUNDS


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("night")
    make_night(directory, seed=3)
    return directory


@pytest.fixture(scope="module")
def planted(night: Path) -> list[dict[str, str]]:
    with open(night / "planted.csv", newline="") as table:
        return list(csv.DictReader(table))


@pytest.mark.parametrize("name", SOUNDS)
@pytest.mark.parametrize("sample_rate_hz", [16_000, 48_000])
def test_sound_keeps_its_form_and_its_band(name: str, sample_rate_hz: int) -> None:
    for seed in range(5):
        sound = SOUNDS[name](np.random.default_rng(seed), sample_rate_hz, 3.0)
        assert sound.dtype == np.float32
        assert sound.shape == (3 * sample_rate_hz,)
        assert np.abs(sound).max() == pytest.approx(synthesis.PEAK, abs=1e-6)
        power = np.abs(np.fft.rfft(sound)) ** 2
        frequency_hz = np.fft.rfftfreq(sound.size, 1 / sample_rate_hz)
        low_hz, high_hz = BANDS_HZ[name]
        inside = power[(frequency_hz >= low_hz) & (frequency_hz <= high_hz)].sum()
        assert inside / power.sum() > 0.95


@pytest.mark.parametrize("name", SOUNDS)
def test_same_generator_state_gives_the_same_sound(name: str) -> None:
    first, again, other = (SOUNDS[name](np.random.default_rng(seed), 16_000, 2.0) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("name", SOUNDS)
def test_very_short_sounds_have_their_length(name: str) -> None:
    sound = SOUNDS[name](np.random.default_rng(0), 16_000, 0.3)
    assert sound.shape == (4800,)
    assert np.isfinite(sound).all()


def test_silence_is_digital_zero() -> None:
    assert not synthesis.silence(np.random.default_rng(0), 16_000, 1.0).any()


@pytest.mark.parametrize(("exponent", "db_per_octave"), [(0, 0), (1, -3), (2, -6)])
def test_coloured_noise_falls_by_its_exponent(exponent: float, db_per_octave: float) -> None:
    noise = synthesis.coloured_noise(np.random.default_rng(0), 2**18, exponent)
    assert np.sqrt(np.mean(noise**2)) == pytest.approx(1, abs=1e-6)
    power = np.abs(np.fft.rfft(noise)) ** 2
    octaves = [power[2**k : 2 ** (k + 1)].mean() for k in range(8, 17)]
    slope = np.polyfit(range(len(octaves)), 10 * np.log10(octaves), 1)[0]
    assert slope == pytest.approx(db_per_octave, abs=0.3)


def test_night_is_small_and_has_three_stations(night: Path) -> None:
    files = [night / path for path, *_ in NIGHT]
    assert sum(file.stat().st_size for file in files) < 30e6
    assert {file.parent.name for file in files} == {"marsh", "ridge", "orchard"}
    assert {file.suffix for file in files} == {".wav", ".WAV", ".flac"}
    for file, (_, sample_rate_hz, duration_s, _) in zip(files, NIGHT, strict=True):
        info = soundfile.info(file)
        assert (info.samplerate, info.channels) == (sample_rate_hz, 1)
        assert info.duration == duration_s


def test_audiomoth_comment_gives_the_time_of_the_file_name(night: Path) -> None:
    with soundfile.SoundFile(night / "ridge/20260514_213000.WAV") as file:
        assert file.comment.startswith("Recorded at 21:30:00 14/05/2026 (UTC) by AudioMoth ")


def test_same_seed_writes_the_same_night(night: Path, tmp_path: Path) -> None:
    make_night(tmp_path / "again", seed=3)
    make_night(tmp_path / "other", seed=4)
    for path in ("planted.csv", NIGHT[0][0], NIGHT[3][0]):
        assert (tmp_path / "again" / path).read_bytes() == (night / path).read_bytes()
        assert (tmp_path / "other" / path).read_bytes() != (night / path).read_bytes()


def test_planted_sounds_lie_in_the_windows_the_night_names(planted: list[dict[str, str]]) -> None:
    windows: dict[str, dict[int, str]] = {path: {} for path, *_ in NIGHT}
    for row in planted:
        first, last = float(row["start_s"]) // 10, float(row["end_s"]) // 10
        assert first == last
        windows[row["path"]][int(first)] = row["label"]
    assert windows == {path: labels for path, _, _, labels in NIGHT}


def test_planted_sounds_stand_out_in_their_band_and_nothing_else_does(
    night: Path, planted: list[dict[str, str]]
) -> None:
    for path, _, _, labels in NIGHT:
        audio, rate_hz = soundfile.read(night / path)
        heard = [row for row in planted if row["path"] == path]
        quiet = np.ones(audio.size, bool)
        for row in heard:
            quiet[round(float(row["start_s"]) * rate_hz) : round(float(row["end_s"]) * rate_hz)] = False
        noise = audio[quiet]
        assert np.abs(noise).max() < 0.004
        assert len(heard) == len(labels)
        for row in heard:
            sound = audio[round(float(row["start_s"]) * rate_hz) : round(float(row["end_s"]) * rate_hz)]
            assert _band_power(sound, rate_hz, row["label"]) > 30 * _band_power(noise, rate_hz, row["label"])


def _band_power(signal: np.ndarray, rate_hz: int, label: str) -> float:
    """Mean power per sample of what lies in a label's band."""
    power = np.abs(np.fft.rfft(signal)) ** 2 / signal.size**2
    frequency_hz = np.fft.rfftfreq(signal.size, 1 / rate_hz)
    low_hz, high_hz = BANDS_HZ[label]
    return float(power[(frequency_hz >= low_hz) & (frequency_hz <= high_hz)].sum())


@pytest.mark.parametrize(
    ("make", "band_hz"),
    [
        (synthesis.bird_call, (1300, 7900)),
        (synthesis.bird_chips, (1700, 7900)),
        (synthesis.bird_chorus, (1300, 7900)),
        (synthesis.cricket_trill, (2600, 6800)),
        (synthesis.rumble, (0, 110)),
    ],
)
def test_other_calls_of_birds_and_crickets_lie_in_their_bands_and_repeat_exactly(make, band_hz) -> None:
    for seed in range(20):
        sound, again = (make(np.random.default_rng(seed), 48_000, 5.0) for _ in "ab")
        assert np.array_equal(sound, again)
        assert sound.shape == (240_000,)
        power = np.abs(np.fft.rfft(sound)) ** 2
        frequency_hz = np.fft.rfftfreq(sound.size, 1 / 48_000)
        inside = power[(frequency_hz >= band_hz[0]) & (frequency_hz <= band_hz[1])].sum()
        assert inside / power.sum() > 0.8  # a call's overtones may lie above
