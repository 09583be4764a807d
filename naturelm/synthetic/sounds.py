"""Animal-like sounds made by code, and a small station night made of them.

No recording is shipped with the package, so the demo, the tests and part of the pocket model's training use these.
Every generator has the form ``f(rng, sample_rate_hz, duration_s) -> float32 [samples]``, mono, peak 0.9, and depends on
nothing but its arguments: the same generator state gives the same sound.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Waveform = NDArray[np.float32]
Sound = Callable[[np.random.Generator, int, float], Waveform]

PEAK = 0.9


def songbird(rng: np.random.Generator, sample_rate_hz: int, duration_s: float) -> Waveform:
    """Whistled song: phrases of one frequency-modulated syllable repeated, 2 to 7 kHz."""
    out = np.zeros(round(duration_s * sample_rate_hz))
    start_s = rng.uniform(0, 0.2)
    while start_s < duration_s:
        syllable_s, gap_s = rng.uniform(0.06, 0.25), rng.uniform(0.02, 0.08)
        low_hz, high_hz = np.sort(rng.uniform(2200, 6800, 2))
        shape = rng.integers(4)
        phase = np.linspace(0, 1, round(syllable_s * sample_rate_hz))
        contour = (
            phase,
            1 - phase,
            np.sin(np.pi * phase),
            0.5 + 0.5 * np.sin(2 * np.pi * phase * rng.integers(2, 6)),
        )[shape]
        syllable = _tone(low_hz + (high_hz - low_hz) * contour, sample_rate_hz) * fade(
            phase.size, sample_rate_hz, 0.01
        )
        for _ in range(rng.integers(2, 8)):
            add_sound(out, syllable, start_s, sample_rate_hz)
            start_s += syllable_s + gap_s
        start_s += rng.uniform(0.1, 0.7)
    return _normalised(out)


def bird_call(rng: np.random.Generator, sample_rate_hz: int, duration_s: float) -> Waveform:
    """Calls rather than song: the same short note now and then, one to three times, 1.5 to 7.5 kHz."""
    out = np.zeros(round(duration_s * sample_rate_hz))
    note_s, harmonics = rng.uniform(0.03, 0.18), (1, *rng.uniform(0, 0.4, 2))
    phase = np.linspace(0, 1, round(note_s * sample_rate_hz))
    start_hz, top_hz, end_hz = rng.uniform(1500, 7500, 3)
    note = _tone(np.interp(phase, (0, 0.4, 1), (start_hz, top_hz, end_hz)), sample_rate_hz, harmonics)
    note *= fade(phase.size, sample_rate_hz, 0.008)
    start_s, repeat_s = rng.uniform(0, 0.3), note_s + rng.uniform(0.04, 0.15)
    while start_s < duration_s:
        for _ in range(rng.integers(1, 4)):
            add_sound(out, note * rng.uniform(0.7, 1), start_s, sample_rate_hz)
            start_s += repeat_s
        start_s += rng.uniform(0.4, 1.8)
    return _normalised(out)


def bird_chorus(rng: np.random.Generator, sample_rate_hz: int, duration_s: float) -> Waveform:
    """Several birds near and far, singing and calling at once: two to five voices, each up to 18 dB softer."""
    out = np.zeros(round(duration_s * sample_rate_hz))
    for _ in range(rng.integers(2, 6)):
        make = (songbird, bird_call, bird_chips)[rng.integers(3)]
        out += 10 ** (-rng.uniform(0, 18) / 20) * make(rng, sample_rate_hz, duration_s)
    return _normalised(out)


def bird_chips(rng: np.random.Generator, sample_rate_hz: int, duration_s: float) -> Waveform:
    """Chips and rattles: very short notes that rise, fall or both, 2 to 14 a second in series, 2 to 8 kHz."""
    out = np.zeros(round(duration_s * sample_rate_hz))
    note_s, rate_hz = rng.uniform(0.015, 0.06), rng.uniform(2, 14)
    start_hz, span_hz = rng.uniform(3500, 6000), rng.uniform(400, 1600) * rng.choice((-1, 1))
    phase = np.linspace(0, 1, round(note_s * sample_rate_hz))
    contour = phase if rng.random() < 0.5 else np.sin(np.pi * phase)
    note = _tone(start_hz + span_hz * contour, sample_rate_hz) * np.sin(np.pi * phase)
    start_s = rng.uniform(0, 0.5)
    while start_s < duration_s:
        for _ in range(rng.integers(3, 20)):
            add_sound(out, note * rng.uniform(0.7, 1), start_s, sample_rate_hz)
            start_s += max(1 / rate_hz, 1.5 * note_s)
        start_s += rng.uniform(0.3, 2)
    return _normalised(out)


def owl(rng: np.random.Generator, sample_rate_hz: int, duration_s: float) -> Waveform:
    """Hooting: series of short, low, nearly pure notes, 300 to 850 Hz, with pauses."""
    out = np.zeros(round(duration_s * sample_rate_hz))
    pitch_hz, rhythm_s = rng.uniform(300, 800), rng.uniform(0.15, 0.4)
    start_s = rng.uniform(0, 0.2)
    while start_s < duration_s:
        for _ in range(rng.integers(2, 6)):
            note_s = rng.uniform(0.15, 0.45)
            phase = np.linspace(0, 1, round(note_s * sample_rate_hz))
            track_hz = pitch_hz * (1 + 0.06 * np.sin(np.pi * phase) - 0.04 * phase)
            add_sound(
                out,
                _tone(track_hz, sample_rate_hz, (1, 0.12)) * np.sin(np.pi * phase) ** 0.7,
                start_s,
                sample_rate_hz,
            )
            start_s += note_s + rhythm_s
        start_s += rng.uniform(0.4, 1.2)
    return _normalised(out)


def frog(rng: np.random.Generator, sample_rate_hz: int, duration_s: float) -> Waveform:
    """A chorus of one to four frogs: croaks that are trains of short pulses, 500 to 3500 Hz."""
    out = np.zeros(round(duration_s * sample_rate_hz))
    for _ in range(rng.integers(1, 5)):
        carrier_hz, pulse_hz = rng.uniform(700, 1800), rng.uniform(18, 55)
        call_s, gap_s, level = rng.uniform(0.25, 0.8), rng.uniform(0.15, 0.8), rng.uniform(0.4, 1)
        time_s = np.arange(round(call_s * sample_rate_hz)) / sample_rate_hz
        pulses = np.exp(-((time_s * pulse_hz) % 1) * 5)
        croak = _tone(np.full(time_s.size, carrier_hz), sample_rate_hz, (1, 0.5)) * pulses
        croak *= level * fade(time_s.size, sample_rate_hz, 0.03)
        start_s = rng.uniform(0, gap_s)
        while start_s < duration_s:
            add_sound(out, croak, start_s, sample_rate_hz)
            start_s += call_s + gap_s * rng.uniform(0.8, 1.2)
    return _normalised(out)


def cricket(rng: np.random.Generator, sample_rate_hz: int, duration_s: float) -> Waveform:
    """A field cricket's stridulation: a pure carrier, 3.5 to 6 kHz, in two to five chirps a second of a few pulses."""
    time_s = np.arange(round(duration_s * sample_rate_hz)) / sample_rate_hz
    pulse_hz, pulses, pause = rng.uniform(25, 45), rng.integers(2, 5), rng.integers(6, 12)
    pulse_index, pulse_phase = np.divmod(time_s * pulse_hz, 1)
    chirp_on = (pulse_index + rng.integers(20)) % (pulses + pause) < pulses
    carrier = _tone(np.full(time_s.size, rng.uniform(3500, 6000)), sample_rate_hz)
    return _normalised(carrier * chirp_on * np.sin(np.pi * np.clip(pulse_phase / 0.7, 0, 1)))


def cricket_trill(rng: np.random.Generator, sample_rate_hz: int, duration_s: float) -> Waveform:
    """A tree or ground cricket's trill: 30 to 60 pulses a second without a pause, of a pure carrier, 2.8 to 6.5 kHz."""
    time_s = np.arange(round(duration_s * sample_rate_hz)) / sample_rate_hz
    pulses = np.clip(np.sin(2 * np.pi * rng.uniform(30, 60) * time_s) + rng.uniform(0, 0.6), 0, 1)
    carrier = _tone(np.full(time_s.size, rng.uniform(2800, 6500)), sample_rate_hz)
    swell = 1 + 0.2 * np.sin(2 * np.pi * rng.uniform(0.1, 0.5) * time_s)
    return _normalised(carrier * pulses * swell)


def wolf(rng: np.random.Generator, sample_rate_hz: int, duration_s: float) -> Waveform:
    """Howling: long harmonic notes that rise, hold and sink, fundamental 250 to 800 Hz."""
    out = np.zeros(round(duration_s * sample_rate_hz))
    start_s = rng.uniform(0, 0.2)
    while start_s < duration_s:
        howl_s, top_hz = rng.uniform(1.8, 4.5), rng.uniform(400, 800)
        phase = np.linspace(0, 1, round(howl_s * sample_rate_hz))
        track_hz = top_hz * np.interp(
            phase, (0, 0.15, rng.uniform(0.5, 0.7), 1), (0.55, 1, rng.uniform(0.85, 1), 0.6)
        )
        track_hz *= 1 + 0.012 * np.sin(2 * np.pi * rng.uniform(4, 7) * phase * howl_s)
        howl = _tone(track_hz, sample_rate_hz, (1, 0.6, 0.35, 0.12)) * fade(phase.size, sample_rate_hz, 0.25)
        add_sound(out, howl, start_s, sample_rate_hz)
        start_s += howl_s * rng.uniform(0.7, 1.3)
    return _normalised(out)


def whale(rng: np.random.Generator, sample_rate_hz: int, duration_s: float) -> Waveform:
    """Moaning: slow low sweeps with harmonics, fundamental 70 to 350 Hz."""
    out = np.zeros(round(duration_s * sample_rate_hz))
    start_s = rng.uniform(0, 0.2)
    while start_s < duration_s:
        moan_s = rng.uniform(1, 3)
        phase = np.linspace(0, 1, round(moan_s * sample_rate_hz))
        track_hz = np.interp(phase, (0, 0.5, 1), rng.uniform(70, 350, 3))
        moan = _tone(track_hz, sample_rate_hz, (1, 0.5, 0.3, 0.2)) * np.sin(np.pi * phase)
        add_sound(out, moan, start_s, sample_rate_hz)
        start_s += moan_s + rng.uniform(0.1, 0.8)
    return _normalised(out)


def bat(rng: np.random.Generator, sample_rate_hz: int, duration_s: float) -> Waveform:
    """Bat calls slowed down tenfold: a regular series of steep downward sweeps, 7 to 2.5 kHz."""
    out = np.zeros(round(duration_s * sample_rate_hz))
    top_hz, bottom_hz = rng.uniform(5500, 7200), rng.uniform(2300, 3200)
    call_s, interval_s = rng.uniform(0.02, 0.06), rng.uniform(0.09, 0.3)
    phase = np.linspace(0, 1, round(call_s * sample_rate_hz))
    call = _tone(bottom_hz + (top_hz - bottom_hz) * (1 - phase) ** 2, sample_rate_hz) * np.sin(np.pi * phase)
    for start_s in np.arange(rng.uniform(0, interval_s), duration_s, interval_s):
        add_sound(out, call * rng.uniform(0.5, 1), float(start_s), sample_rate_hz)
    return _normalised(out)


def rain(rng: np.random.Generator, sample_rate_hz: int, duration_s: float) -> Waveform:
    """Rain: a steady hiss, 0.5 to 8 kHz, and many separate drops."""
    size = round(duration_s * sample_rate_hz)
    hiss = _band(coloured_noise(rng, size, rng.uniform(0, 0.6)), sample_rate_hz, rng.uniform(500, 1000), 8000)
    drops = np.zeros(size)
    for start in rng.integers(0, size, max(1, int(duration_s * rng.uniform(20, 120)))):
        click = rng.standard_normal(min(size - start, sample_rate_hz // 100))
        drops[start : start + click.size] += (
            rng.exponential() * click * np.exp(-np.linspace(0, 6, click.size))
        )
    drops = _band(drops, sample_rate_hz, 1000, 8000)
    return _normalised(hiss / _rms(hiss) + rng.uniform(0.3, 1.2) * drops / _rms(drops))


def wind(rng: np.random.Generator, sample_rate_hz: int, duration_s: float) -> Waveform:
    """Wind: low rumble, mostly under 500 Hz, that swells and falls in gusts."""
    size = round(duration_s * sample_rate_hz)
    rumble = _band(coloured_noise(rng, size, 2), sample_rate_hz, 20, rng.uniform(300, 700))
    knots = rng.uniform(0.15, 1, max(2, int(duration_s / rng.uniform(0.5, 1.5)) + 2))
    gusts = np.interp(np.linspace(0, knots.size - 1, size), np.arange(knots.size), knots)
    return _normalised(rumble * gusts**2)


def engine(rng: np.random.Generator, sample_rate_hz: int, duration_s: float) -> Waveform:
    """Engine hum: steady harmonics of 30 to 90 Hz, slightly wavering."""
    time_s = np.arange(round(duration_s * sample_rate_hz)) / sample_rate_hz
    waver = 1 + 0.02 * np.sin(2 * np.pi * rng.uniform(0.1, 0.6) * time_s + rng.uniform(0, 6))
    harmonics = tuple(rng.uniform(0.3, 1, 14) / np.arange(1, 15) ** 0.5)
    hum = _tone(rng.uniform(30, 90) * waver, sample_rate_hz, harmonics)
    return _normalised(hum + 0.1 * _rms(hum) * coloured_noise(rng, time_s.size, 1))


def background(rng: np.random.Generator, sample_rate_hz: int, duration_s: float) -> Waveform:
    """What a quiet place and a recorder's own electronics sound like: steady noise of a random colour."""
    size = round(duration_s * sample_rate_hz)
    noise = coloured_noise(rng, size, rng.uniform(0, 1.6))
    knots = rng.uniform(0.8, 1, 6)
    return _normalised(noise * np.interp(np.linspace(0, 5, size), np.arange(6), knots))


def silence(rng: np.random.Generator, sample_rate_hz: int, duration_s: float) -> Waveform:
    """Digital silence."""
    return np.zeros(round(duration_s * sample_rate_hz), np.float32)


def rumble(rng: np.random.Generator, sample_rate_hz: int, duration_s: float) -> Waveform:
    """What a microphone without a high-pass filter adds: steady noise below 25 to 90 Hz, and an offset."""
    size = round(duration_s * sample_rate_hz)
    low = _band(coloured_noise(rng, size, rng.uniform(1, 2)), sample_rate_hz, 1, rng.uniform(25, 90))
    return _normalised(low + rng.uniform(-3, 3) * _rms(low))


SOUNDS: dict[str, Sound] = {
    "Songbird": songbird,
    "Owl": owl,
    "Frog": frog,
    "Cricket": cricket,
    "Wolf": wolf,
    "Whale": whale,
    "Bat": bat,
    "Rain": rain,
    "Wind": wind,
    "Engine": engine,
}
"""The labelled sounds, by the name the pocket model gives them."""

BANDS_HZ: dict[str, tuple[float, float]] = {
    "Songbird": (2000, 7200),
    "Owl": (250, 1800),
    "Frog": (400, 4000),
    "Cricket": (3300, 6300),
    "Wolf": (150, 3500),
    "Whale": (40, 1600),
    "Bat": (2000, 7600),
    "Rain": (400, 8200),
    "Wind": (0, 800),
    "Engine": (20, 1600),
}
"""The band that contains each sound's energy."""


def coloured_noise(rng: np.random.Generator, size: int, exponent: float) -> NDArray[np.float64]:
    """Noise whose power falls as ``frequency ** -exponent`` (0 white, 1 pink, 2 brown), of unit RMS."""
    spectrum = np.fft.rfft(rng.standard_normal(size))
    noise = np.fft.irfft(spectrum * np.maximum(np.arange(spectrum.size), 1) ** (-exponent / 2), size)
    return noise / _rms(noise)


def _tone(
    track_hz: NDArray[np.float64], sample_rate_hz: int, harmonics: tuple[float, ...] = (1,)
) -> NDArray[np.float64]:
    phase = 2 * np.pi * np.cumsum(track_hz) / sample_rate_hz
    return np.sum([level * np.sin(n * phase) for n, level in enumerate(harmonics, 1)], axis=0)


def fade(size: int, sample_rate_hz: int, fade_s: float) -> NDArray[np.float64]:
    ramp = np.arange(size) / (fade_s * sample_rate_hz)
    return np.minimum(np.minimum(ramp, ramp[::-1]), 1)


def _band(
    signal: NDArray[np.float64], sample_rate_hz: int, low_hz: float, high_hz: float
) -> NDArray[np.float64]:
    frequency_hz = np.fft.rfftfreq(signal.size, 1 / sample_rate_hz)
    spectrum = np.fft.rfft(signal)
    return np.fft.irfft(spectrum * ((frequency_hz >= low_hz) & (frequency_hz <= high_hz)), signal.size)


def add_sound(out: NDArray, sound: NDArray, start_s: float, sample_rate_hz: int) -> None:
    start = round(start_s * sample_rate_hz)
    end = min(start + sound.size, out.size)
    if start < end:
        out[start:end] += sound[: end - start]


def _rms(signal: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(signal**2))) or 1.0


def _normalised(signal: NDArray[np.float64]) -> Waveform:
    return (signal * (PEAK / max(float(np.abs(signal).max(initial=0)), 1e-9))).astype(np.float32)
