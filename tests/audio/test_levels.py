"""Band levels on the way from file to model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from naturelm.audio.isolated import DecodeRequest, IsolatedDecoder
from naturelm.audio.levels import BANDS, BandMeter
from naturelm.audio.streaming import SoundStream


def sine(frequency_hz: float, rate_hz: int, seconds: float = 2.0) -> np.ndarray:
    return np.sin(2 * np.pi * frequency_hz * np.arange(round(seconds * rate_hz)) / rate_hz).astype(np.float32)


def measured(samples: np.ndarray, rate_hz: int) -> BandMeter:
    meter = BandMeter(rate_hz)
    meter.hear(samples)
    return meter


@pytest.mark.parametrize("rate_hz", [1_000, 8_000, 16_000, 22_050, 44_100, 48_000, 384_000])
def test_a_tone_is_loudest_in_its_own_half_octave(rate_hz: int) -> None:
    top_hz = min(8_000, rate_hz / 2)
    for band in (1, 5, BANDS - 1):
        centre_hz = top_hz * 2 ** ((band + 0.5 - BANDS) / 2)
        levels = measured(sine(centre_hz, rate_hz, seconds=2048 / top_hz), rate_hz).levels(0, 1e9)
        assert set(levels.db.argmax(axis=1)) == {band}


def test_sound_above_what_the_model_hears_has_no_level() -> None:
    levels = measured(0.5 * sine(30_000, 96_000), 96_000).levels(0, 1e9)
    assert levels.db.max() < -80


def test_digital_silence_has_a_finite_level() -> None:
    assert np.isfinite(measured(np.zeros(16_000, np.float32), 16_000).levels(0, 1).db).all()


def test_levels_do_not_depend_on_the_blocks_that_they_are_heard_in() -> None:
    samples = np.random.default_rng(0).standard_normal(50_000).astype(np.float32)
    whole = measured(samples, 16_000).levels(0, 1e9)
    meter = BandMeter(16_000)
    for block in np.split(samples, [1, 700, 701, 20_000, 20_511]):
        meter.hear(block)
    np.testing.assert_allclose(meter.levels(0, 1e9).db, whole.db, atol=1e-3)


def test_a_stream_that_begins_later_has_its_frames_on_the_same_grid() -> None:
    samples = np.random.default_rng(0).standard_normal(48_000 * 3).astype(np.float32)
    meter = BandMeter(48_000, first_sample=48_000)
    meter.hear(samples[48_000:])
    later, whole = meter.levels(1, 3), measured(samples, 48_000).levels(1, 3)
    assert later.start_s == whole.start_s >= 1
    np.testing.assert_allclose(later.db, whole.db, atol=1e-3)


def test_frames_lie_wholly_within_the_span_that_is_asked_for() -> None:
    levels = measured(sine(500, 16_000, 5), 16_000).levels(1.0, 2.0)
    assert levels.start_s >= 1.0
    end_s = levels.start_s + (len(levels.db) - 1) * levels.hop_s + levels.frame_s
    assert 2.0 - levels.hop_s < end_s <= 2.0


def test_what_is_forgotten_frees_its_memory() -> None:
    meter = BandMeter(16_000)
    for _ in range(100):
        meter.hear(np.zeros(16_000, np.float32))
        meter.forget(1e9)
    assert len(meter.levels(0, 1e9).db) < 40


@pytest.mark.parametrize("name", ["x.wav", "x.flac", "x.mp3"])
def test_spans_of_one_request_have_the_levels_of_the_whole_recording(tmp_path: Path, name: str) -> None:
    rate_hz = 44_100
    path = tmp_path / name
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(rate_hz * 40), rate_hz)
    with SoundStream(path, measure_levels=True) as stream:
        for _ in stream.read(0, None):
            pass
        whole = stream.levels(0, 1e9)
    spans = ((3.0, 15.0), (10.0, 22.0), (35.0, 40.0))
    with IsolatedDecoder() as decoder:
        parts = list(decoder.decode(DecodeRequest(str(path), spans, with_levels=True)))
    for (start_s, end_s), part in zip(spans, parts, strict=True):
        assert part.levels is not None
        first = round(part.levels.start_s / whole.hop_s)
        expected = whole.db[first : first + len(part.levels.db)]
        assert len(expected) * whole.hop_s == pytest.approx(end_s - start_s, abs=3 * whole.hop_s)
        np.testing.assert_allclose(part.levels.db, expected, atol=0.01)


def test_no_levels_are_measured_unless_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    soundfile.write(path, np.zeros(16_000), 16_000)
    with IsolatedDecoder() as decoder:
        (span,) = decoder.decode(DecodeRequest(str(path), ((0.0, 1.0),)))
    assert span.levels is None
