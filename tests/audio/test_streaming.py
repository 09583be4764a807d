"""Decoding to mono sound at 16 kHz, and cutting it into windows."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naturelm.audio.cutting import cut_windows
from naturelm.audio.streaming import DecodeError, SoundStream, decode
from naturelm.windows import SAMPLE_RATE_HZ, Window, plan_windows
from tests.broken_files import noise, write
from tests.paths import REPO


def whole(path: Path, **options: float | int | None) -> np.ndarray:
    blocks = list(decode(path, **options))  # type: ignore[arg-type]
    assert all(block.dtype == np.float32 for block in blocks)
    return np.concatenate([np.empty(0, np.float32), *blocks])


def tone(rate_hz: int, seconds: float = 3.0, frequency_hz: float = 300.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency_hz * np.arange(round(seconds * rate_hz)) / rate_hz))[:, None]


@pytest.mark.parametrize(
    "rate_hz", [1000, 2000, 8000, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000, 384_000]
)
def test_a_tone_keeps_its_phase_and_level_at_any_sample_rate(tmp_path: Path, rate_hz: int) -> None:
    sound = whole(write(tmp_path / "x.wav", tone(rate_hz), rate_hz, subtype="FLOAT"))
    expected = tone(SAMPLE_RATE_HZ)[:, 0]
    assert len(sound) == len(expected)
    inside = slice(SAMPLE_RATE_HZ // 2, -SAMPLE_RATE_HZ // 2)
    assert np.abs(sound[inside] - expected[inside]).max() < 2e-4


def test_what_16_khz_cannot_hold_is_filtered_out(tmp_path: Path) -> None:
    sound = whole(write(tmp_path / "x.wav", tone(48_000, frequency_hz=10_000), 48_000, subtype="FLOAT"))
    assert np.abs(sound[1000:-1000]).max() < 1e-4


def test_sound_at_16_khz_is_left_as_it_is(tmp_path: Path) -> None:
    sound = noise()
    np.testing.assert_array_equal(whole(write(tmp_path / "x.wav", sound, subtype="FLOAT")), sound[:, 0])


def test_channels_are_averaged_or_one_is_picked(tmp_path: Path) -> None:
    sound = noise(channels=8)
    path = write(tmp_path / "x.wav", sound, subtype="FLOAT")
    np.testing.assert_allclose(whole(path), sound.mean(axis=1), atol=1e-6)
    np.testing.assert_array_equal(whole(path, channel=7), sound[:, 7])


def test_a_channel_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        DecodeError, match=r"^x.wav: has 2 channel\(s\) and no channel 2; give a lower"
    ) as caught:
        whole(write(tmp_path / "x.wav", noise(channels=2)), channel=2)
    assert caught.value.status == "unsupported"


@pytest.mark.parametrize("rate_hz", [16_000, 22_050, 48_000])
def test_float_files_with_nan_infinity_and_clipping_become_finite(tmp_path: Path, rate_hz: int) -> None:
    sound = noise(rate_hz=rate_hz)
    path = write(tmp_path / "clean.wav", sound, rate_hz, subtype="FLOAT")
    clean = whole(path)
    sound[rate_hz : rate_hz + 5] = [[np.nan], [np.inf], [-np.inf], [3e38], [-7.5]]
    broken = whole(write(tmp_path / "broken.wav", sound, rate_hz, subtype="FLOAT"))
    assert np.isfinite(broken).all()
    assert np.abs(broken).max() <= 1.0
    np.testing.assert_allclose(broken[2 * SAMPLE_RATE_HZ :], clean[2 * SAMPLE_RATE_HZ :], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "rate_hz"),
    [("x.wav", 22_050), ("x.wav", 48_000), ("x.wav", 2000), ("x.flac", 44_100), ("x.mp3", 48_000)],
)
def test_a_span_holds_the_same_samples_as_the_whole_recording(
    tmp_path: Path, name: str, rate_hz: int
) -> None:
    path = write(tmp_path / name, noise(30, rate_hz), rate_hz)
    sound = whole(path)
    # 25.5 s lies far enough from the start for a seek.
    for start_s, end_s in ((0.0, 1.0), (0.7, 3.1), (9.99995, 12.0), (25.5, 28.25), (29.0, None)):
        last = None if end_s is None else round(end_s * SAMPLE_RATE_HZ)
        span = whole(path, start_s=start_s, end_s=end_s)
        expected = sound[round(start_s * SAMPLE_RATE_HZ) : last]
        assert len(span) == len(expected)
        assert np.abs(span - expected).max() < 1e-5


@given(
    spans=st.lists(st.tuples(st.integers(0, 480_000), st.integers(0, 200_000)), min_size=1, max_size=6),
    is_sorted=st.booleans(),
)
@settings(max_examples=settings.default.max_examples // 3)
def test_any_spans_read_from_one_stream_equal_the_whole(
    long_wav: Path, spans: list[tuple[int, int]], is_sorted: bool
) -> None:
    sound = whole(long_wav)
    spans = sorted(spans) if is_sorted else spans
    with SoundStream(long_wav) as stream:
        for index, (first, length) in enumerate(spans):
            following = spans[index + 1][0] if index + 1 < len(spans) else None
            blocks = list(stream.read(first, first + length, following))
            part = np.concatenate(blocks)
            expected = sound[first : first + length]
            assert len(part) == len(expected)
            assert np.abs(part - expected).max(initial=0.0) < 1e-5


@pytest.fixture(scope="module")
def long_wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("long") / "x.wav", noise(30, 22_050), 22_050)


def test_a_span_beyond_the_end_is_empty(long_wav: Path) -> None:
    assert len(whole(long_wav, start_s=50.0, end_s=60.0)) == 0


def test_overlapping_spans_do_not_decode_twice(tmp_path: Path) -> None:
    path = write(tmp_path / "x.flac", noise(30))
    with SoundStream(path) as stream:
        list(stream.read(0, 160_000, keep_from=80_000))
        stream._sound.close()  # whatever is still needed is kept, or this fails
        kept = np.concatenate(list(stream.read(80_000, 160_000)))
    np.testing.assert_array_equal(kept, whole(path)[80_000:160_000])


def test_damage_raises_after_what_lies_before_it(tmp_path: Path) -> None:
    path = write(tmp_path / "cut.flac", noise(10))
    sound = whole(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    blocks: list[np.ndarray] = []
    with pytest.raises(DecodeError, match=r"cut.flac: decoding stopped \(flac decoder lost sync\)"):
        blocks.extend(decode(path))
    before = np.concatenate(blocks)
    assert 4.5 < len(before) / SAMPLE_RATE_HZ <= 5
    np.testing.assert_array_equal(before, sound[: len(before)])


def test_windows_cut_from_blocks_of_any_size_hold_their_samples() -> None:
    sound = np.random.default_rng(0).standard_normal(16_000 * 25 + 123).astype(np.float32)
    windows = plan_windows(len(sound) / 16_000, 10.0, 2.5)
    for size in (7919, 160_000, len(sound)):
        blocks = (sound[start : start + size] for start in range(0, len(sound), size))
        for cut in cut_windows(blocks, windows, 160_000):
            first = round(cut.window.start_s * 16_000)
            expected = sound[first : first + 160_000]
            np.testing.assert_array_equal(cut.samples[: len(expected)], expected)
            assert not cut.samples[len(expected) :].any()
            assert cut.decoded_s == len(expected) / 16_000


def test_windows_of_a_segment_count_from_the_recordings_start() -> None:
    sound = np.arange(32_000, dtype=np.float32)
    (cut,) = cut_windows([sound], [Window(9, 90.5, 91.5)], 16_000, start_s=90.0)
    np.testing.assert_array_equal(cut.samples, sound[8000:24_000])


def test_windows_beyond_the_sound_are_silent_and_say_so() -> None:
    cut = list(cut_windows([np.ones(16_000)], plan_windows(3.0, 1.0, 1.0), 16_000))
    assert [part.decoded_s for part in cut] == [1.0, 0.0, 0.0]
    assert not cut[2].samples.any()


def test_windows_read_no_further_than_they_need() -> None:
    blocks = iter([np.ones(16_000)] * 100)
    list(cut_windows(blocks, [Window(0, 0.0, 1.0)], 16_000))
    assert len(list(blocks)) == 99


def test_memory_does_not_grow_with_the_recordings_length(tmp_path: Path) -> None:
    """Ten hours of 8 channels at 96 kHz (55 GB, nearly all a hole): ten seconds, two minutes, the end."""
    path = write(tmp_path / "long.rf64", noise(1, 96_000, channels=8), 96_000, format="RF64")
    content = path.read_bytes()
    frames = 10 * 3600 * 96_000
    with path.open("r+b") as file:
        file.seek(content.index(b"ds64") + 16)
        file.write(struct.pack("<QQ", 16 * frames, frames))
        file.truncate(content.index(b"data") + 8 + 16 * frames)
    script = (
        "import sys\n"
        "from naturelm.audio.streaming import decode\n"
        "print(sum(len(block) for block in decode(sys.argv[1], end_s=float(sys.argv[2]))))\n"
        "print(sum(len(block) for block in decode(sys.argv[1], start_s=35990.0)))\n"
        # Not getrusage: a child's maximum there begins with its parent's.
        "print(int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) // 1024)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(REPO)}
    megabytes = {}
    for seconds in (10, 120):
        command = [sys.executable, "-c", script, str(path), str(seconds)]
        output = subprocess.run(command, env=environment, capture_output=True, check=True).stdout
        head, end, megabytes[seconds] = map(int, output.split())
        assert (head, end) == (seconds * SAMPLE_RATE_HZ, 10 * SAMPLE_RATE_HZ)
    assert megabytes[120] - megabytes[10] < 20
    assert megabytes[120] < 200
